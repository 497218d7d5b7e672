/*
 * PAGEMAP_SCAN as linux/fs.h has it from 6.7 on, which the headers of a build may not have yet
 * (struct page_region, struct pm_scan_arg).
 */
#ifndef FORKD_PAGEMAP_SCAN_H
#define FORKD_PAGEMAP_SCAN_H

#include <stdint.h>
#include <sys/ioctl.h>

struct scan_region {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};
struct scan_request {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};
#define FORKD_PAGEMAP_SCAN _IOWR('f', 16, struct scan_request)

#endif
