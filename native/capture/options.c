#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"

static const char usage[] =
    "usage: forkd-capture --pid PID --start-ticks N --monitor SOCKET --ram-size BYTES\n"
    "         --mode stopped|live [--all] --vmstate FILE --pages FILE --extents FILE --base FILE\n"
    "         [--overlay FILE --overlay-extents FILE] [--max-pause-ms N] [--qmp-pivot JSON]...\n"
    "         [--no-sync] [--plain-pagemap]\n";

static noreturn void misused(const char *why) {
  fprintf(stderr, "forkd-capture: %s\n%s", why, usage);
  exit(2);
}

static uint64_t number(const char *text, uint64_t max, const char *why) {
  char *end = NULL;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || *text == '-' || value > max) misused(why);
  return value;
}

static bool is_live(const char *mode) {
  if (strcmp(mode, "live") == 0) return true;
  if (strcmp(mode, "stopped") != 0) misused("--mode is stopped or live");
  return false;
}

static void add_pivot(struct options *options, const char *command) {
  if (options->pivot_count == pivots_max) misused("too many --qmp-pivot");
  options->pivots[options->pivot_count++] = command;
}

static void take(struct options *options, const char *name, const char *value) {
  const uint64_t day_ms = 86400000;
  const struct {
    const char *name;
    const char **to;
  } texts[] = {
      {"monitor", &options->monitor},
      {"vmstate", &options->vmstate},
      {"pages", &options->pages},
      {"extents", &options->extents},
      {"base", &options->base},
      {"overlay", &options->overlay},
      {"overlay-extents", &options->overlay_extents},
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    if (strcmp(name, texts[i].name) != 0) continue;
    *texts[i].to = value;
    return;
  }
  if (strcmp(name, "pid") == 0) options->pid = (pid_t)number(value, 1u << 22, "--pid");
  else if (strcmp(name, "start-ticks") == 0) {
    options->start_ticks = number(value, UINT64_MAX, "--start-ticks");
  } else if (strcmp(name, "ram-size") == 0) {
    options->ram_bytes = number(value, 1ull << 44, "--ram-size");
  } else if (strcmp(name, "max-pause-ms") == 0) {
    options->max_pause_ms = number(value, day_ms, "--max-pause-ms");
  } else if (strcmp(name, "mode") == 0) options->live = is_live(value);
  else if (strcmp(name, "qmp-pivot") == 0) add_pivot(options, value);
  else if (strcmp(name, "all") == 0) options->all = true;
  else if (strcmp(name, "no-sync") == 0) options->sync = false;
  else options->plain_pagemap = true;
}

static void require_whole(const struct options *options) {
  bool named = options->monitor != NULL && options->base != NULL;
  bool outputs = options->vmstate != NULL && options->pages != NULL && options->extents != NULL;
  if (!named || !outputs || options->pid == 0) misused("an option is missing");
  if (options->ram_bytes == 0 || options->ram_bytes % page_size != 0) misused("--ram-size");
  if ((options->overlay == NULL) != (options->overlay_extents == NULL)) {
    misused("--overlay and --overlay-extents go together");
  }
}

struct options parse_options(int argc, char **argv) {
  enum { flag = no_argument, valued = required_argument };
  static const struct option known[] = {
      {"pid", valued, NULL, 'o'},          {"start-ticks", valued, NULL, 'o'},
      {"monitor", valued, NULL, 'o'},      {"ram-size", valued, NULL, 'o'},
      {"mode", valued, NULL, 'o'},         {"all", flag, NULL, 'o'},
      {"vmstate", valued, NULL, 'o'},      {"pages", valued, NULL, 'o'},
      {"extents", valued, NULL, 'o'},      {"base", valued, NULL, 'o'},
      {"overlay", valued, NULL, 'o'},      {"overlay-extents", valued, NULL, 'o'},
      {"max-pause-ms", valued, NULL, 'o'}, {"qmp-pivot", valued, NULL, 'o'},
      {"no-sync", flag, NULL, 'o'},        {"plain-pagemap", flag, NULL, 'o'},
      {NULL, 0, NULL, 0},
  };
  struct options options = {.sync = true};
  int at = 0;
  for (int got; (got = getopt_long(argc, argv, "", known, &at)) != -1;) {
    if (got != 'o') misused("an option is not known");
    take(&options, known[at].name, optarg);
  }
  if (optind != argc) misused("an argument too many");
  require_whole(&options);
  return options;
}
