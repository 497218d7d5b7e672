/* /etc/forkd-recipe.env: the warm-up of images that were made for earlier versions. */
#ifndef FORKD_RECIPE_H
#define FORKD_RECIPE_H

#include "env.h"

/* Adds the KEY=VALUE lines of `text` to `e`. Comments, blank and malformed lines are skipped;
 * one pair of matching quotes around a value is dropped. */
void recipe_parse(struct env *e, const char *text, size_t len);
/* Splits like a POSIX shell would, without expansions. Returns a NULL-terminated list (free it with
 * words_free), or NULL when a quote is open or there are more than ARGV_MAX words. */
char **words_split(const char *text);
void words_free(char **words);

#endif
