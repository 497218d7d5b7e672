/*
 * forkd-sparse: what a sparse file holds, which Node cannot ask.
 *
 *   forkd-sparse data FILE TABLE    writes the extents of FILE that hold data
 *   forkd-sparse whole FILE TABLE   writes one extent, all of FILE
 *   forkd-sparse lay FILE ONTO      copies what FILE holds over the same places of ONTO
 *   forkd-sparse apply FILE TABLE ONTO
 *                                   copies the extents of TABLE, zeros too, over those of ONTO
 *
 * TABLE is new, but for apply: (u64 offset, u64 length) pairs, little-endian, sorted, whole pages,
 * apart from each other. Prints the number of extents and of the bytes that they cover.
 *
 * A file system that keeps data in pieces larger than a page would call pages data that nobody
 * wrote: zeros that would lie over an image. Such a file is refused.
 *
 * Exit: 0, or 1 with the reason on standard error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { page_bytes = 4096, table_entries_max = 1 << 20 };

static const char *path_in_use = "";

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "forkd-sparse: %s: %s: %s\n", path_in_use, what, strerror(errno));
  exit(1);
}

static _Noreturn void refuse(const char *why) {
  fprintf(stderr, "forkd-sparse: %s: %s\n", path_in_use, why);
  exit(1);
}

static off_t size_of(int fd, bool pages_matter) {
  struct stat st;
  if (fstat(fd, &st) != 0) fail("fstat");
  if (!S_ISREG(st.st_mode)) refuse("it is no plain file");
  if (st.st_size % page_bytes != 0) refuse("it is not made of whole pages");
  if (pages_matter && st.st_blksize > page_bytes) refuse("its file system keeps larger pieces");
  return st.st_size;
}

/* The next run of data from `at` on, in whole pages; false when there is none. */
static bool next_run(int fd, off_t at, off_t size, off_t *start, off_t *end) {
  off_t from = lseek(fd, at, SEEK_DATA);
  if (from < 0 && errno == ENXIO) return false;
  if (from < 0) fail("SEEK_DATA");
  off_t to = lseek(fd, from, SEEK_HOLE);
  if (to < 0) fail("SEEK_HOLE");
  *start = from - from % page_bytes;
  *end = to + (page_bytes - to % page_bytes) % page_bytes;
  if (*start < at) *start = at;
  if (*end > size) *end = size;
  return *start < *end;
}

static void put_le64(unsigned char *out, uint64_t value) {
  for (int i = 0; i < 8; i++) out[i] = (unsigned char)(value >> (8 * i));
}

static void write_entry(FILE *table, off_t start, off_t end) {
  unsigned char entry[16];
  put_le64(entry, (uint64_t)start);
  put_le64(entry + 8, (uint64_t)(end - start));
  if (fwrite(entry, sizeof entry, 1, table) != 1) fail("write");
}

static int open_file(const char *path, int flags) {
  path_in_use = path;
  int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) fail("open");
  return fd;
}

static void make_table(const char *file, const char *table_path, bool whole) {
  int out = open_file(table_path, O_WRONLY | O_CREAT | O_EXCL);
  FILE *table = fdopen(out, "w");
  if (!table) fail("fdopen");
  int fd = open_file(file, O_RDONLY);
  off_t size = size_of(fd, !whole);
  uint64_t count = 0;
  uint64_t bytes = 0;
  off_t start = 0;
  off_t end = 0;
  if (whole) {
    write_entry(table, 0, size);
    count = 1;
    bytes = (uint64_t)size;
  }
  while (!whole && next_run(fd, end, size, &start, &end)) {
    if (++count > table_entries_max) refuse("it has too many extents");
    bytes += (uint64_t)(end - start);
    write_entry(table, start, end);
  }
  path_in_use = table_path;
  if (fflush(table) != 0 || fsync(out) != 0 || fclose(table) != 0) fail("write");
  close(fd);
  printf("%llu %llu\n", (unsigned long long)count, (unsigned long long)bytes);
}

static bool is_zero(const unsigned char *data, size_t len) {
  return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

static void copy_run(int from, int to, off_t start, off_t end) {
  static unsigned char piece[1 << 20];
  while (start < end) {
    size_t want = (size_t)(end - start) < sizeof piece ? (size_t)(end - start) : sizeof piece;
    ssize_t got = pread(from, piece, want, start);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read");
    if (got == 0) refuse("it became shorter");
    bool hole = is_zero(piece, (size_t)got) &&
                fallocate(to, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, got) == 0;
    if (hole) {
      start += got;
      continue;
    }
    for (ssize_t done = 0; done < got;) {
      ssize_t put = pwrite(to, piece + done, (size_t)(got - done), start + done);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) fail("write to its target");
      done += put;
    }
    start += got;
  }
}

static void lay(const char *file, const char *onto) {
  int to = open_file(onto, O_WRONLY);
  off_t target_size = size_of(to, false);
  int from = open_file(file, O_RDONLY);
  off_t size = size_of(from, true);
  if (size != target_size) refuse("its target has another size");
  uint64_t count = 0;
  uint64_t bytes = 0;
  off_t start = 0;
  off_t end = 0;
  while (next_run(from, end, size, &start, &end)) {
    copy_run(from, to, start, end);
    count++;
    bytes += (uint64_t)(end - start);
  }
  printf("%llu %llu\n", (unsigned long long)count, (unsigned long long)bytes);
}

static uint64_t get_le64(const unsigned char *in) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; i--) value = value << 8 | in[i];
  return value;
}

/* False at the end of the table. */
static bool read_entry(FILE *table, off_t at_least, off_t size, off_t *start, off_t *end) {
  unsigned char entry[16];
  size_t got = fread(entry, 1, sizeof entry, table);
  if (got == 0 && feof(table)) return false;
  if (got != sizeof entry) refuse("the table is cut off");
  uint64_t offset = get_le64(entry);
  uint64_t length = get_le64(entry + 8);
  uint64_t bytes = (uint64_t)size;
  bool sound = offset % page_bytes == 0 && length % page_bytes == 0 && length > 0 &&
               offset >= (uint64_t)at_least && offset <= bytes && length <= bytes - offset;
  if (!sound) refuse("an entry of the table is wrong");
  *start = (off_t)offset;
  *end = (off_t)(offset + length);
  return true;
}

static void apply(const char *file, const char *table_path, const char *onto) {
  int to = open_file(onto, O_WRONLY);
  off_t size = size_of(to, false);
  int from = open_file(file, O_RDONLY);
  if (size_of(from, false) != size) refuse("its target has another size");
  FILE *table = fdopen(open_file(table_path, O_RDONLY), "r");
  if (!table) fail("fdopen");
  uint64_t count = 0;
  uint64_t bytes = 0;
  off_t start = 0;
  off_t end = 0;
  while (path_in_use = table_path, read_entry(table, end, size, &start, &end)) {
    path_in_use = file;
    copy_run(from, to, start, end);
    if (++count > table_entries_max) refuse("its table has too many entries");
    bytes += (uint64_t)(end - start);
  }
  printf("%llu %llu\n", (unsigned long long)count, (unsigned long long)bytes);
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "data") == 0) {
    make_table(argv[2], argv[3], false);
  } else if (argc == 4 && strcmp(argv[1], "whole") == 0) {
    make_table(argv[2], argv[3], true);
  } else if (argc == 4 && strcmp(argv[1], "lay") == 0) {
    lay(argv[2], argv[3]);
  } else if (argc == 5 && strcmp(argv[1], "apply") == 0) {
    apply(argv[2], argv[3], argv[4]);
  } else {
    fprintf(stderr, "usage: forkd-sparse data|whole FILE TABLE | lay FILE ONTO |"
                    " apply FILE TABLE ONTO\n");
    return 1;
  }
  return 0;
}
