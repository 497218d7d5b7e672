/* The files of this capture, until they are whole. */
#include <unistd.h>

#include "capture.h"

enum { own_files_max = 4 };

static const char *own_files[own_files_max];
static size_t own_file_count;

void own_file(const char *path) {
  if (own_file_count == own_files_max) fail(CODE_SYSTEM, "too many files");
  own_files[own_file_count++] = path;
}

void remove_own_files(void) {
  for (size_t i = 0; i < own_file_count; i++) unlink(own_files[i]);
}
