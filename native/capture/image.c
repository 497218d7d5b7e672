/* The layers that the child's RAM was mapped from, to tell what is really different. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "capture.h"

static int open_file(const char *path, uint64_t *bytes) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) != 0) fail_errno("open", path);
  *bytes = (uint64_t)st.st_size;
  return fd;
}

static const uint8_t *map_file(int fd, uint64_t bytes, const char *path) {
  const uint8_t *at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) fail_errno("map", path);
  return at;
}

static void require_extent(struct run extent, uint64_t from, uint64_t end, const char *path) {
  bool pages = extent.offset % page_size == 0 && extent.length % page_size == 0;
  bool apart = extent.offset >= from && extent.offset <= end;
  if (!pages || !apart || extent.length > end - extent.offset) {
    fail(CODE_LAYOUT, "%s: an extent is out of order or past the end", path);
  }
}

static void read_extents(struct image *image, uint64_t end, const char *path) {
  uint64_t bytes;
  int fd = open_file(path, &bytes);
  size_t count = bytes / sizeof(struct run);
  struct run *extents = malloc(bytes + 1);
  if (extents == NULL) fail_errno("allocate", path);
  if (read(fd, extents, bytes) != (ssize_t)bytes) fail_errno("read", path);
  close(fd);
  uint64_t from = 0;
  for (size_t i = 0; i < count; i++) {
    require_extent(extents[i], from, end, path);
    from = extents[i].offset + extents[i].length;
    for (uint64_t at = extents[i].offset; at < from; at += page_size) {
      bit_set(image->overlaid, at / page_size);
    }
  }
  free(extents);
}

void image_open(struct image *image, const struct options *options) {
  uint64_t bytes;
  image->bytes = options->ram_bytes;
  image->overlaid = bits_new(image->bytes / page_size);
  image->base_fd = open_file(options->base, &bytes);
  if (bytes != image->bytes) fail(CODE_LAYOUT, "%s is not the RAM's size", options->base);
  image->base = map_file(image->base_fd, bytes, options->base);
  image->overlay_fd = -1;
  if (options->overlay == NULL) return;
  image->overlay_fd = open_file(options->overlay, &bytes);
  if (bytes > image->bytes) bytes = image->bytes;
  if (bytes > 0) image->overlay = map_file(image->overlay_fd, bytes, options->overlay);
  read_extents(image, bytes, options->overlay_extents);
}

const uint8_t *image_page(const struct image *image, uint64_t offset) {
  bool overlaid = bit_get(image->overlaid, offset / page_size);
  return (overlaid ? image->overlay : image->base) + offset;
}
