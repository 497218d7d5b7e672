/* Which programs of an image may be the interpreter? */
#ifndef FORKD_RUNTIME_FIND_H
#define FORKD_RUNTIME_FIND_H

/* Paths of programs with one of these names (NULL-terminated), in the order to try them: the PATH
 * of commands, then the usual directories. NULL-terminated, without doubles, for words_free. */
char **runtime_find(const char *const *names);

#endif
