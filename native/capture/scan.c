/*
 * Which pages of the RAM are the process's own. A page that is private to it is anonymous memory:
 * the guest has written there since the image was mapped.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../pagemap-scan.h"
#include "capture.h"

/* Categories and flags of the scan (linux/fs.h, PAGE_IS_* and PM_SCAN_*). */
#define PAGE_WRITTEN (1ull << 1)
#define PAGE_FILE (1ull << 2)
#define PAGE_PRESENT (1ull << 3)
#define PAGE_SWAPPED (1ull << 4)
#define SCAN_WP_MATCHING (1ull << 0)
#define SCAN_CHECK_WPASYNC (1ull << 1)

/* /proc/PID/pagemap (admin-guide/mm/pagemap): present, swapped, page of a file. */
#define WORD_PRESENT (1ull << 63)
#define WORD_SWAPPED (1ull << 62)
#define WORD_FILE (1ull << 61)

enum {
  regions_max = 16384,
  words_max = 32768,
};

/* Either regions or words; allocated and touched before the pause. */
static void *scratch;
static bool has_ioctl;

uint64_t *bits_new(uint64_t count) {
  uint64_t *bits = calloc((size_t)(count + 63) / 64, sizeof *bits);
  if (bits == NULL) fail_errno("allocate", "a page set");
  return bits;
}

bool bit_get(const uint64_t *bits, uint64_t at) { return (bits[at / 64] >> (at % 64) & 1) != 0; }

void bit_set(uint64_t *bits, uint64_t at) { bits[at / 64] |= 1ull << (at % 64); }

void run_list_reserve(struct run_list *list, size_t capacity) {
  if (capacity <= list->capacity) return;
  struct run *runs = realloc(list->runs, capacity * sizeof *runs);
  if (runs == NULL) fail_errno("allocate", "a list of pages");
  /* Touched, so that the pause does not wait for the kernel to find the memory. */
  memset(runs + list->capacity, 0, (capacity - list->capacity) * sizeof *runs);
  list->runs = runs;
  list->capacity = capacity;
}

void run_list_add(struct run_list *list, uint64_t offset, uint64_t length) {
  list->bytes += length;
  struct run *last = list->count == 0 ? NULL : &list->runs[list->count - 1];
  if (last != NULL && last->offset + last->length == offset) {
    last->length += length;
    return;
  }
  if (list->count == list->capacity) run_list_reserve(list, list->capacity * 2 + 1024);
  list->runs[list->count++] = (struct run){offset, length};
}

static struct scan_request request_of(const struct target *target, enum scan_kind kind) {
  struct scan_request request = {
      .size = sizeof request,
      .start = target->ram_address,
      .end = target->ram_address + target->ram_bytes,
      .vec = (uint64_t)(uintptr_t)scratch,
      .vec_len = regions_max,
  };
  if (kind == scan_private) {
    request.category_inverted = PAGE_FILE;
    request.category_mask = PAGE_FILE;
    request.category_anyof_mask = PAGE_PRESENT | PAGE_SWAPPED;
    return request;
  }
  /* Only this question is answered from the page tables alone, without a look at each page. */
  request.category_mask = PAGE_WRITTEN;
  request.return_mask = PAGE_WRITTEN;
  request.flags = SCAN_CHECK_WPASYNC;
  if (kind == scan_reset) request.flags |= SCAN_WP_MATCHING;
  return request;
}

void scan_protect(const struct target *target) {
  struct scan_request request = request_of(target, scan_reset);
  request.vec = 0;
  request.vec_len = 0;
  while (request.start < request.end) {
    if (ioctl(target->pagemap_fd, FORKD_PAGEMAP_SCAN, &request) < 0 && errno != EINTR) {
      target_blame_end(target);
      fail(CODE_LIVE, "the kernel does not protect the VMM's RAM: %s", strerror(errno));
    }
    request.start = request.walk_end;
  }
}

static void scan_by_ioctl(const struct target *target, enum scan_kind kind,
                          struct run_list *found) {
  struct scan_request request = request_of(target, kind);
  const struct scan_region *regions = scratch;
  while (request.start < request.end) {
    int count = ioctl(target->pagemap_fd, FORKD_PAGEMAP_SCAN, &request);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      target_blame_end(target);
      fail_errno("scan", "the VMM's page map");
    }
    for (int i = 0; i < count; i++) {
      uint64_t length = regions[i].end - regions[i].start;
      run_list_add(found, regions[i].start - target->ram_address, length);
    }
    if (request.walk_end <= request.start) fail(CODE_SYSTEM, "the kernel's scan does not advance");
    request.start = request.walk_end;
  }
}

static void scan_by_reading(const struct target *target, struct run_list *found) {
  const uint64_t *words = scratch;
  uint64_t pages = target->ram_bytes / page_size;
  for (uint64_t page = 0; page < pages;) {
    uint64_t want = pages - page < words_max ? pages - page : words_max;
    off_t at = (off_t)((target->ram_address / page_size + page) * sizeof *words);
    ssize_t got = pread(target->pagemap_fd, scratch, want * sizeof *words, at);
    if (got < (ssize_t)sizeof *words) {
      target_blame_end(target);
      fail_errno("read", "the VMM's page map");
    }
    uint64_t count = (uint64_t)got / sizeof *words;
    for (uint64_t i = 0; i < count; i++) {
      bool there = (words[i] & (WORD_PRESENT | WORD_SWAPPED)) != 0;
      bool own = there && (words[i] & WORD_FILE) == 0;
      if (own) run_list_add(found, (page + i) * page_size, page_size);
    }
    page += count;
  }
}

void scan_prepare(const struct target *target, bool plain_pagemap) {
  size_t size = regions_max * sizeof(struct scan_region);
  if (size < words_max * sizeof(uint64_t)) size = words_max * sizeof(uint64_t);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
  scratch = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (scratch == MAP_FAILED) fail_errno("allocate", "memory for the scan");
  /* A range of no bytes: does the kernel know the call at all? */
  struct scan_request probe = request_of(target, scan_private);
  probe.end = probe.start;
  has_ioctl = !plain_pagemap && ioctl(target->pagemap_fd, FORKD_PAGEMAP_SCAN, &probe) >= 0;
}

bool scan_has_ioctl(void) { return has_ioctl; }

void scan_pages(const struct target *target, enum scan_kind kind, struct run_list *found) {
  found->count = 0;
  found->bytes = 0;
  if (has_ioctl) scan_by_ioctl(target, kind, found);
  else if (kind == scan_private) scan_by_reading(target, found);
  else fail(CODE_LIVE, "the kernel cannot scan page maps");
}
