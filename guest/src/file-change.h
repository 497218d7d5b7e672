/* The actions that put a file in place or take one away. */
#ifndef FORKD_FILE_CHANGE_H
#define FORKD_FILE_CHANGE_H

#include "file-ask.h"

void file_write_action(const struct file_ask *ask);
void file_remove_action(const struct file_ask *ask);

#endif
