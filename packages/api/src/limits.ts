/** Every public bound of forkd. Units come last in each name. */
export const limits = {
  /** Children of one spawn request (upstream-compatible). */
  spawnCountMax: 1000,
  /** Bytes of a JSON request body; upstream's framework refused above 2 MB. */
  requestBodyBytesMax: 2 * 1024 * 1024,
  /** Bytes of all request bodies that one daemon holds at a time; more are answered 429. */
  requestBodiesBytesMax: 64 * 1024 * 1024,
  /** Bytes of one captured output stream of a buffered exec; the rest is cut and flagged. */
  execOutputBytesMax: 8 * 1024 * 1024,
  /** Words of one command, its name included. */
  execArgsMax: 4096,
  /** Characters of one word, one environment value or a directory name. */
  execArgBytesMax: 128 * 1024,
  /** Time of a command when the request names none. */
  execTimeoutDefaultSecs: 30,
  /** The longest time that a command may be given. */
  execTimeoutMaxSecs: 24 * 60 * 60,
  /** Time of an evaluation when the request names none. */
  evalTimeoutDefaultSecs: 30,
  /** Characters of the code of one evaluation. */
  evalCodeBytesMax: 1024 * 1024,
  /** Output, or input, of an exec stream that may be under way to who has not taken it yet. */
  execWindowBytes: 256 * 1024,
  /** The last output of an exec that the guest keeps for who attaches later. */
  execReplayBytes: 256 * 1024,
  /** Bytes of one message of an exec stream's client. */
  execMessageBytesMax: 128 * 1024,
  /** How long a client of an exec stream may take to say what it wants. */
  execStartMaxMs: 10_000,
  /** How often the daemon asks an exec stream's client whether it lives. */
  execPingEveryMs: 15_000,
  /** Signals and sizes of an exec stream that may wait for the guest; more end the connection. */
  execControlsWaitingMax: 32,
  /** Rows, and columns, of a terminal. */
  terminalSideMax: 4096,
  /** Commands over exec streams that may run in one sandbox, attached or not. */
  execsRunningMax: 64,
  /** Commands of a sandbox that have ended and are remembered. */
  execsEndedMax: 16,
  /** Bytes of a path in a guest: the kernel's PATH_MAX, less its NUL. */
  filePathBytesMax: 4095,
  /** Bytes of one file that is written or read; the largest disk that a guest can have. */
  fileBytesMax: 64 * 1024 * 1024 * 1024,
  /** Entries of one answer that lists a directory; more are cut and flagged. */
  fileListEntriesMax: 10_000,
  /** Transfers of files in flight through one daemon; more are answered 429. */
  concurrentFileTransfersMax: 64,
  /** Work on files in flight in one sandbox; more is answered 429. */
  fileActionsPerSandboxMax: 8,
  /** How long a transfer may stand still, on either side, before it is given up. */
  fileTransferIdleMaxMs: 60_000,
  /** Time of what moves no bytes: list, stat, remove, mkdir, rename. */
  fileActionMaxMs: 60_000,
  /** Bytes of the end of a VMM's log that are shown, and kept of one that has ended. */
  logBytesMax: 16 * 1024,
  /** The largest `lines` of a request for a log. */
  logLinesMax: 16 * 1024,
  /** Requests for logs in flight through one daemon; more are answered 429. */
  concurrentLogsMax: 16,
  /** Clients that follow logs of one daemon at a time; more are answered 429. */
  logFollowersMax: 64,
  /** Events that a daemon remembers, for clients that come back. */
  eventsKeptMax: 1024,
  /** Clients that follow one daemon's events at a time; more are answered 429. */
  eventClientsMax: 64,
  /** Characters of the list of types in a request for events. */
  eventFilterCharsMax: 256,
  /** How often a client of events hears that the daemon lives when nothing happens. */
  eventHeartbeatMs: 15_000,
  /** How long a client of events should wait before it comes back. */
  eventRetryMs: 1_000,
  /** Least memory of a guest. */
  memoryMinMib: 128,
  /** RAM above this splits around the PCI hole, which the engines do not handle yet. */
  memoryMaxMib: 3072,
  /** Memory of a guest when nothing is asked for. */
  memoryDefaultMib: 512,
  /** Most processors of a guest. */
  vcpusMax: 16,
  /** Least scratch disk of a guest. */
  scratchMinMib: 64,
  /** Largest scratch disk of a guest. */
  scratchMaxMib: 64 * 1024,
  /** Layers of a scratch disk: its base, and one for each branch on the way to a child. */
  scratchLayersMax: 32,
  /** Largest root image. */
  rootfsMaxMib: 64 * 1024,
  /** Largest `boot_wait_secs`. */
  bootWaitMaxSecs: 60,
  /** Time to get warm when the request names none. */
  warmTimeoutDefaultSecs: 120,
  /** The longest time that a parent may be given to get warm. */
  warmTimeoutMaxSecs: 3600,
  /** Modules that a parent imports before it is frozen. */
  warmImportsMax: 64,
  /** Children that may be restored at one time in one process. */
  concurrentRestoresMax: 4,
  /** Children that may wait to be restored; a spawn that would add more is answered 503. */
  queuedRestoresMax: 2000,
  /** Links between a snapshot and its base. */
  chainLinksMax: 64,
  /** Snapshots that one daemon bakes at a time; more are answered 503. */
  concurrentBakesMax: 2,
  /** Branches that one daemon takes at a time unless `--branch-concurrency` says otherwise. */
  concurrentBranchesDefault: 4,
  /** The largest `--branch-concurrency`. */
  concurrentBranchesMax: 64,
  /** Execs, evals and pings in flight through one daemon; more are answered 429. */
  concurrentExecsMax: 512,
  /** Execs and evals in flight in one sandbox, so that none can take all places: more get 429. */
  execsPerSandboxMax: 48,
  /** Pings in flight to one sandbox; more are answered 429. */
  pingsPerSandboxMax: 4,
  /** Output that one process holds for execs and evals in flight; what is over is cut and flagged. */
  guestOutputBytesMax: 512 * 1024 * 1024,
  /** The same for one sandbox: two execs with all the output that an exec may have. */
  guestOutputPerSandboxBytesMax: 32 * 1024 * 1024,
  /** Spawn requests that one daemon holds at a time, running or waiting; more are answered 429. */
  concurrentSpawnsMax: 64,
  /** Largest `memory_limit_mib`. */
  memoryLimitMaxMib: 1024 * 1024,
  /** Smallest `cpu_limit`: the kernel's least quota, a hundredth of a processor. */
  cpuLimitMin: 0.01,
  /** Largest `cpu_limit`. */
  cpuLimitMax: 1024,
  /** Smallest `pids_limit`: a VMM has a thread for each processor and up to 64 for its disks. */
  pidsLimitMin: 96,
  /** Largest `pids_limit`. */
  pidsLimitMax: 32_768,
  /** Threads of the host that a sandbox's VMM may have when the request names no number. */
  pidsLimitDefault: 256,
  /** Smallest `io_read_bps` and `io_write_bps`. */
  ioMinBps: 64 * 1024,
  /** Rules in each of the two lists of an egress policy. */
  egressRulesMax: 64,
  /** Ports and ranges of ports in one rule of an egress policy. */
  egressPortsMax: 32,
  /** Time of a child to prove its identity unless `--identity-timeout-secs` says otherwise. */
  identityTimeoutDefaultSecs: 60,
  /** The largest `--identity-timeout-secs`. */
  identityTimeoutMaxSecs: 80,
  /** Shortest bearer token that the daemon accepts as its own. */
  tokenBytesMin: 16,
  /** Longest bearer token. */
  tokenBytesMax: 4096,
  /** Open connections of one daemon; more are refused. */
  connectionsMax: 1024,
  /** How long a client may take to send a request's headers. */
  requestHeadersMaxMs: 10_000,
  /** From the first byte of a request to the last of its body. */
  requestReceiveMaxMs: 30_000,
  /** Requests in flight on one connection; more are answered 429, and the connection is closed. */
  pipelinedRequestsMax: 16,
  /** How long a client may leave its answer unread before its connection is cut. */
  answerStallMaxMs: 60_000,
  /** Arrays and objects within one another in a request body. */
  jsonDepthMax: 64,
  /** Commas outside texts in a request body, which are as many as its values. */
  jsonValuesMax: 20_000,
  /** How long a stopping daemon waits for requests in flight. */
  drainMaxMs: 30_000,
  /** The largest `max_pause_ms`: no branch may stop its guest for longer. */
  branchPauseMaxMs: 60_000,
  /** A branch that names no `max_pause_ms` gives up, and lets its guest go on, after this. */
  branchPauseDefaultMs: 30_000,
  /** Bytes of a pack that is pushed or pulled. */
  transferBytesMax: 256 * 1024 * 1024 * 1024,
  /** How long one push or pull may take; a pull goes on where it stopped. */
  transferMaxSecs: 24 * 60 * 60,
  /** Bytes of a hub's index. */
  hubIndexBytesMax: 4 * 1024 * 1024,
  /** Packages in a hub's index. */
  hubPackagesMax: 4096,
  /** Versions of one package in a hub's index. */
  hubVersionsMax: 1024,
} as const;
