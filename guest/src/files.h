/* Small files of the guest. In test mode every path is looked up under --root. */
#ifndef FORKD_FILES_H
#define FORKD_FILES_H

#include <stdbool.h>
#include <stddef.h>

#define PATH_BYTES_MAX 4096

/* The directory that stands for "/" (tests only; "" in a guest). */
void files_set_root(const char *root);
/* Writes the real path into `out`; false when it does not fit. */
bool files_path(const char *path, char out[PATH_BYTES_MAX]);
/* Whole content, NUL-terminated, to be freed; NULL when absent, not a plain file or over `max`. */
char *file_read(const char *path, size_t max, size_t *len);
/* Writes temp + rename in the same directory, which is made when absent (one level). */
bool file_write(const char *path, const char *text, size_t len, unsigned mode);
/* A regular file for writing; -1 when there is none. */
int file_open_existing(const char *path);
/* Overwrites a plain file where it is, which is the short way on an overlay; else file_write. For
 * files that nobody reads at that moment. */
bool file_overwrite(const char *path, const char *text, size_t len, unsigned mode);

#endif
