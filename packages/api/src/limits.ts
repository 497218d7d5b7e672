/** Every public bound of forkd. Units come last in each name. */
export const limits = {
  /** Children of one spawn request (upstream-compatible). */
  spawnCountMax: 1000,
  /** Bytes of a JSON request body; upstream's framework refused above 2 MB. */
  requestBodyBytesMax: 2 * 1024 * 1024,
  /** Bytes of one captured output stream of a buffered exec; the rest is cut and flagged. */
  execOutputBytesMax: 8 * 1024 * 1024,
  execArgsMax: 4096,
  execArgBytesMax: 128 * 1024,
  execTimeoutDefaultSecs: 30,
  execTimeoutMaxSecs: 24 * 60 * 60,
  evalTimeoutDefaultSecs: 30,
  evalCodeBytesMax: 1024 * 1024,
  memoryMinMib: 128,
  /** RAM above this splits around the PCI hole, which the engines do not handle yet. */
  memoryMaxMib: 3072,
  memoryDefaultMib: 512,
  vcpusMax: 16,
  rootfsMaxMib: 64 * 1024,
  bootWaitMaxSecs: 60,
  warmTimeoutDefaultSecs: 120,
  warmTimeoutMaxSecs: 3600,
  warmImportsMax: 64,
  /** Spawns that may be restoring VMs at one time in one process. */
  concurrentRestoresMax: 4,
  /** Snapshot bakes at one time. */
  concurrentBakesMax: 2,
  /** Execs and evals in flight through one daemon; more are answered 429. */
  concurrentExecsMax: 512,
  /** Spawn requests that one daemon holds at a time, running or waiting; more are answered 429. */
  concurrentSpawnsMax: 64,
  tokenBytesMin: 16,
  tokenBytesMax: 4096,
  /** Open connections of one daemon; more are refused. */
  connectionsMax: 1024,
  requestHeadersMaxMs: 10_000,
  /** From the first byte of a request to the last of its body. */
  requestReceiveMaxMs: 30_000,
  /** How long a stopping daemon waits for requests in flight. */
  drainMaxMs: 30_000,
} as const;
