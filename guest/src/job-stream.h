/* A stream that shows a job: its input goes there, its output comes from there. */
#ifndef FORKD_JOB_STREAM_H
#define FORKD_JOB_STREAM_H

#include "job.h"
#include "stream.h"

/* For job_start: hands the job's output to the stream; `done` gets the stream. */
struct job_sink job_stream_sink(struct stream *stream,
                                void (*done)(void *stream, const struct job_result *result));
/* The job has started. */
void job_stream_serve(struct stream *stream, struct job *job);

#endif
