/* Lines on the console (or standard error), each prefixed so that the host can find them. */
#ifndef FORKD_LOG_H
#define FORKD_LOG_H

void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Writes "forkd-agent: fatal: ..." and ends: as PID 1 the guest powers off. */
void log_fatal(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/* Silences log_line (fuzzing and tests that expect errors). */
void log_mute(void);

#endif
