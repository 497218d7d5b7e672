/*
 * The layer that is written: a sparse file of pages at the offsets that they have in the RAM, and a
 * table of the extents that are part of it. A page of zeros is a hole in an extent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"

static int create_file(const char *path) {
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) fail_errno("create", path);
  own_file(path);
  return fd;
}

static void write_at(int fd, const uint8_t *data, size_t length, uint64_t offset) {
  while (length > 0) {
    ssize_t wrote = pwrite(fd, data, length, (off_t)offset);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) fail_errno("write", "the layer");
    data += wrote;
    offset += (uint64_t)wrote;
    length -= (size_t)wrote;
  }
}

static bool is_zero(const uint8_t *page) {
  return page[0] == 0 && memcmp(page, page + 1, page_size - 1) == 0;
}

enum verdict { page_same, page_zero, page_data };

/* A page that is taken already has to be written whatever it holds now. */
static enum verdict judge(const struct output *output, uint64_t offset, const uint8_t *page) {
  if (bit_get(output->taken, offset / page_size)) return page_data;
  if (memcmp(page, image_page(output->image, offset), page_size) == 0) return page_same;
  return is_zero(page) ? page_zero : page_data;
}

void output_write(struct output *output, struct run run, const uint8_t *data) {
  uint64_t pending = 0;
  for (uint64_t at = 0; at < run.length; at += page_size) {
    enum verdict verdict = judge(output, run.offset + at, data + at);
    if (verdict != page_same) bit_set(output->taken, (run.offset + at) / page_size);
    if (verdict == page_data) pending += page_size;
    else {
      write_at(output->pages_fd, data + at - pending, pending, run.offset + at - pending);
      pending = 0;
    }
  }
  uint64_t from = run.length - pending;
  write_at(output->pages_fd, data + from, pending, run.offset + from);
}

void output_open(struct output *output, const struct image *image, const struct options *options) {
  output->image = image;
  output->taken = bits_new(image->bytes / page_size);
  output->pages_fd = create_file(options->pages);
  if (ftruncate(output->pages_fd, (off_t)image->bytes) != 0) fail_errno("size", options->pages);
}

/* The pages of one layer between two offsets, as far as they are visible and not taken. */
static void take_range(struct output *output, bool overlaid, uint64_t from, uint64_t to) {
  for (uint64_t at = from - from % page_size; at < to; at += page_size) {
    uint64_t page = at / page_size;
    if (bit_get(output->taken, page)) continue;
    if (bit_get(output->image->overlaid, page) != overlaid) continue;
    const uint8_t *bytes = image_page(output->image, at);
    if (!is_zero(bytes)) write_at(output->pages_fd, bytes, page_size, at);
  }
}

/* Holes of a layer are not looked at: reading them would fill the page cache with zeros. */
static void take_layer(struct output *output, int fd, bool overlaid) {
  uint64_t end = output->image->bytes;
  for (off_t from = 0; from >= 0 && (uint64_t)from < end;) {
    from = lseek(fd, from, SEEK_DATA);
    if (from < 0) return;
    off_t to = lseek(fd, from, SEEK_HOLE);
    if (to < 0) fail_errno("seek", "a layer of the image");
    take_range(output, overlaid, (uint64_t)from, (uint64_t)to < end ? (uint64_t)to : end);
    guard_check();
    from = to;
  }
}

void output_complete(struct output *output) {
  take_layer(output, output->image->base_fd, false);
  if (output->image->overlay_fd >= 0) take_layer(output, output->image->overlay_fd, true);
}

static void list_taken(const struct output *output, struct run_list *extents) {
  uint64_t words = (output->image->bytes / page_size + 63) / 64;
  for (uint64_t word = 0; word < words; word++) {
    for (uint64_t bits = output->taken[word]; bits != 0; bits &= bits - 1) {
      uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(bits);
      run_list_add(extents, page * page_size, page_size);
    }
  }
}

static void close_file(int fd, bool sync, const char *path) {
  if (sync && fdatasync(fd) != 0) fail_errno("sync", path);
  if (close(fd) != 0) fail_errno("close", path);
}

void write_file(const char *path, const void *data, size_t size, bool sync) {
  int fd = create_file(path);
  write_at(fd, data, size, 0);
  close_file(fd, sync, path);
}

struct output_totals output_close(struct output *output, const struct options *options) {
  struct run_list extents = {0};
  if (options->all) run_list_add(&extents, 0, output->image->bytes);
  else list_taken(output, &extents);
  write_file(options->extents, extents.runs, extents.count * sizeof *extents.runs, options->sync);
  close_file(output->pages_fd, options->sync, options->pages);
  return (struct output_totals){extents.bytes / page_size, extents.count};
}
