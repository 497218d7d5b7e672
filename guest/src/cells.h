/* The cgroups that everything a guest runs lives in, so that it can be stopped as one. */
#ifndef FORKD_CELLS_H
#define FORKD_CELLS_H

#include <stdbool.h>

enum cell { CELL_COMMANDS, CELL_RUNTIME, CELL_HOOKS, CELLS };

/* Makes the cells in a cgroup v2 directory (in a guest: its root). A kernel without the freezer is
 * logged: processes then start outside, and cells_freeze refuses. */
void cells_init(const char *dir);
/* The directory of a cell, for a new process; -1 without cells. */
int cell_fd(enum cell cell);
/* Whether a process in it would not run: nobody may start one there. */
bool cell_is_frozen(enum cell cell);
/* The cells turned out not to work for new processes: nothing is started in them any more. */
void cells_give_up(const char *why);

/* Stops every process of every cgroup in the directory, those that a guest has made itself too,
 * but for those that the guest has frozen itself. NULL, and later `stopped` is called from the
 * loop, or why it cannot be done. */
const char *cells_freeze(void (*stopped)(void));
/* Lets one cell run again. */
void cell_thaw(enum cell cell);
/* Lets all that cells_freeze stopped run again. Valid at any time. */
void cells_thaw(void);

#endif
