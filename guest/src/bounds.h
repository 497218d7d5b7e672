/* Every bound of the agent, named, with its unit; those of the wire: docs/guest-protocol.md. */
#ifndef FORKD_BOUNDS_H
#define FORKD_BOUNDS_H

#define AGENT_VERSION "0.6.1"
#define PROTOCOL_VERSION 1

/* Channel. */
#define TOKEN_BYTES 16
#define FIRST_TOKEN "FORKD-ATTACH-001"
#define FRAME_HEADER_BYTES 12
#define FRAME_PAYLOAD_BYTES_MAX 65536
#define STREAMS_MAX 64
#define STREAM_CREDIT_BYTES 262144
#define STREAM_CREDIT_BYTES_MAX (1U << 30)
#define OUTPUT_CHUNK_BYTES 32768
/* Reading requests stops above the high mark and starts again below the low one. */
#define QUEUE_HIGH_BYTES (2U << 20)
#define QUEUE_LOW_BYTES (1U << 20)
/* A queue that would grow over this ends the session: the host does not read. */
#define QUEUE_BYTES_MAX (24U << 20)

#define VSOCK_BACKLOG 8
#define VSOCK_KNOCK_MS 2000

/* JSON. */
#define JSON_DEPTH_MAX 32
#define JSON_NODES_MAX 65536

/* Commands. */
#define ARGV_MAX 4096
#define ENV_MAX 1024
#define GROUPS_MAX 64
#define TIMEOUT_MS_MAX 86400000U
#define EXEC_LINGER_MS 200
#define ACCOUNT_FILE_BYTES_MAX (1U << 20)

/* Execs that outlive their streams. */
#define EXECS_RUNNING_MAX 64
/* Those that have ended and are remembered, the latest. */
#define EXECS_ENDED_MAX 16
#define EXEC_ID_BYTES_MAX 64
/* Of the command, for lists: all of them must fit in one frame. */
#define EXEC_TITLE_BYTES_MAX 64
/* Output of one exec that is kept for who attaches later. */
#define EXEC_RING_BYTES 262144
#define EXEC_RING_RUNS_MAX 1024
#define TTY_SIDE_MAX 4096

/* Evals. */
#define EVAL_CODE_BYTES_MAX (1U << 20)
#define EVALS_WAITING_MAX 64
#define EVAL_INTERRUPT_GRACE_MS 1000
#define RUNTIME_LINE_BYTES_MAX (4U << 20)
#define RUNTIME_IMPORTS_MAX 64
#define RUNTIME_CANDIDATES_MAX 32
#define RUNTIME_RESTART_MS 60000
/* Generous: a hundred children that wake together on two cores are slow to answer. */
#define RUNTIME_RESEED_MS 30000
#define RESULT_PIECE_BYTES 32768

/* Warm-up. */
#define WARM_TAIL_BYTES 4096
#define PROBE_FIRST_MS 5
#define PROBE_LAST_MS 100
#define RECIPE_FILE_BYTES_MAX 65536

/* Identity. */
#define ENTROPY_BYTES_MIN 32
#define ENTROPY_BYTES_MAX 512
#define HOOKS_MAX 64
#define HOOK_TIMEOUT_MS 2000
#define HOOK_DETAIL_BYTES 512

/* Hold. */
#define HOLD_MS_MIN 1000
#define HOLD_MS_MAX 600000
/* A process in an uninterruptible wait, on a disk for example, stops when that is over. */
#define HOLD_STOP_MS 2000
#define HOLD_GROUPS_MAX 64
/* Requests and input that wait for its end: what all streams together may have under way. */
#define DEFERRED_BYTES_MAX (24U << 20)

/* TCP door. */
#define TCP_PORT 8888
#define TCP_BACKLOG 128
#define TCP_CONNECTIONS_MAX 64
#define TCP_REQUEST_BYTES_MAX (1U << 20)
#define TCP_REQUEST_MS 30000
#define TCP_REPLY_MS 60000
#define TCP_CAPTURE_BYTES_MAX (8U << 20)
/* All connections together, so that captures cannot take the guest's memory. */
#define TCP_CAPTURE_TOTAL_BYTES_MAX (64U << 20)

/* Boot. */
#define DEVICE_WAIT_MS 10000
#define MODULES_MAX 64
#define CMDLINE_BYTES_MAX 4096
#define AGENT_NICE (-20)
#define POWEROFF_GRACE_MS 300

#endif
