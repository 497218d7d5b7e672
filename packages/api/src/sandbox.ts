import { z } from "zod";
import { egressSchema } from "./egress.ts";
import { exactText, wellFormedText } from "./exact-text.ts";
import { snapshotTagSchema } from "./ids.ts";
import { limits } from "./limits.ts";
import { limitFields, sandboxLimitsSchema } from "./sandbox-limits.ts";
import { engineNameSchema, isolationTierSchema } from "./snapshot.ts";

/** docs/lifecycle.md says what leads from one to the other. */
export const sandboxStateSchema = z.enum(["starting", "running", "branching", "ending", "ended"]);
export type SandboxState = z.infer<typeof sandboxStateSchema>;

/** Why a sandbox ended; docs/lifecycle.md has a sentence for each. */
export const endReasonSchema = z.enum([
  "killed",
  "exited",
  "oom",
  "engine_crash",
  "identity_timeout",
  "identity_failed",
  "agent_failed",
  "spawn_failed",
  "host_restart",
  "lost",
  "drained",
]);
export type EndReason = z.infer<typeof endReasonSchema>;

/** `detail` is a sentence for people. */
export const sandboxEndSchema = z.object({
  reason: endReasonSchema,
  at_unix_ms: z.int(),
  detail: z.string(),
});
export type SandboxEnd = z.infer<typeof sandboxEndSchema>;

/** What a guest proved about itself before it was opened; docs/fork-identity.md explains it. */
export const attestationSchema = z.object({
  /** How many forks lie between this guest and the boot of its first ancestor. */
  generation: z.int(),
  entropy_bytes: z.int(),
  crng_reseeded: z.boolean(),
  clock_skew_before_ms: z.number(),
  clock_skew_after_ms: z.number(),
  /** How long the time was under way to the guest at most: its clock is at most this much behind. */
  clock_uncertainty_ms: z.number().optional(),
  hostname: z.string(),
  machine_id: z.string(),
  /** Null while a sandbox has no network of its own. */
  mac: z.string().nullable().default(null),
  ip: z.string().nullable().default(null),
  /** Generators of warm runtimes that got a new seed: `random`, `numpy.random`, `Math.random`... */
  reseeded: z.array(z.string()).default([]),
  /** An eval from before the fork still ran: the runtime is reseeded before any other code runs. */
  reseed_pending: z.boolean().default(false),
  /** The executables of /etc/forkd/fork.d, in the order in which they ran. */
  hooks: z.array(z.object({ name: z.string(), ok: z.boolean(), detail: z.string().optional() })),
});
export type Attestation = z.infer<typeof attestationSchema>;

/** One sandbox. The first ten fields are upstream's: nulls are emitted, never omitted. */
export const sandboxInfoSchema = z.object({
  id: z.string(),
  snapshot_tag: z.string(),
  netns: z.string().nullable(),
  guest_addr: z.string(),
  created_at_unix: z.int(),
  pid: z.int().nullable(),
  memory_limit_mib: z.int().nullable(),
  has_branched: z.boolean(),
  last_branch_memory_path: z.string().nullable(),
  branch_count: z.int(),
  state: sandboxStateSchema,
  /** Null before the end has begun. */
  end: sandboxEndSchema.nullable(),
  engine: engineNameSchema,
  isolation: isolationTierSchema,
  hostname: z.string(),
  spawn_ms: z.number().nullable(),
  limits: sandboxLimitsSchema,
  /** The disk that the guest writes to; absent when it writes to its memory. */
  scratch_mib: z.int().optional(),
  /** What its network lets through; absent when it has none. */
  egress: egressSchema.optional(),
  identity: attestationSchema.nullable(),
});
export type SandboxInfo = z.infer<typeof sandboxInfoSchema>;

/** Whether sandboxes that have ended, but are remembered, are meant too. */
export const endedQuerySchema = z.object({ ended: z.stringbool().default(false) });

/** How much of a sandbox's log; all that is kept when absent. */
export const logsQuerySchema = z.object({
  lines: z.coerce.number().int().min(1).max(limits.logLinesMax).optional(),
});

/** `POST /v1/sandboxes`. Unknown fields are ignored, as upstream's clients expect. */
export const createSandboxSchema = z.object({
  snapshot_tag: snapshotTagSchema,
  n: z.int().min(1).max(limits.spawnCountMax).default(1),
  /** A network namespace, a card and addresses of its own for each; without, no network. */
  per_child_netns: z.boolean().default(false),
  /** What each may reach, with `per_child_netns`; nothing when absent. */
  egress: egressSchema.nullish(),
  ...limitFields,
  prewarm: z.boolean().default(false),
  live_fork: z.boolean().default(false),
  hugepages: z.boolean().default(false),
  /** Refuse a snapshot whose children have no scratch disk of at least this size. */
  scratch_mib: z.int().min(limits.scratchMinMib).max(limits.scratchMaxMib).nullish(),
  /** Refuse to run with weaker isolation than this. */
  min_isolation: isolationTierSchema.nullish(),
});
export type CreateSandbox = z.infer<typeof createSandboxSchema>;

/** One word of a command, a name or value of its environment, or its directory. */
export const argSchema = exactText(limits.execArgBytesMax);

export const execRequestSchema = z.object({
  args: z.array(argSchema).max(limits.execArgsMax),
  timeout_secs: z
    .number()
    .positive()
    .max(limits.execTimeoutMaxSecs)
    .default(limits.execTimeoutDefaultSecs),
  env: z.record(argSchema, argSchema).default({}),
  cwd: argSchema.nullish(),
  user: exactText(256).nullish(),
  /** Text for the command's standard input, which is closed after it. */
  stdin: wellFormedText().nullish(),
});
export type ExecRequest = z.infer<typeof execRequestSchema>;

/** `exit_code` is negative for a signal, as upstream's agent reports it; `signal` names it. */
export const execResultSchema = z.object({
  stdout: z.string(),
  stderr: z.string(),
  exit_code: z.int(),
  signal: z.string().nullable(),
  timed_out: z.boolean(),
  truncated: z.boolean(),
  error: z.string().nullable(),
  duration_ms: z.number(),
});
export type ExecResult = z.infer<typeof execResultSchema>;

export const evalRequestSchema = z.object({
  code: wellFormedText(limits.evalCodeBytesMax),
  timeout_secs: z
    .number()
    .positive()
    .max(limits.execTimeoutMaxSecs)
    .default(limits.evalTimeoutDefaultSecs),
});
export type EvalRequest = z.infer<typeof evalRequestSchema>;

/** `result` is the value's text; `result_json` its JSON, or null when it has none. */
export const evalResultSchema = z.object({
  result: z.string().nullable(),
  result_json: z.string().nullable(),
  stdout: z.string(),
  stderr: z.string(),
  error: z.string().nullable(),
  traceback: z.string().nullable(),
  exit_code: z.int(),
  timed_out: z.boolean(),
  duration_ms: z.number(),
});
export type EvalResult = z.infer<typeof evalResultSchema>;

export const pongSchema = z.object({
  pong: z.literal(true),
  numpy_version: z.string(),
  pid: z.int(),
  agent_lang: z.string(),
  warmup_ready: z.boolean(),
  agent_version: z.string(),
  /** Microseconds from the ping's write to the pong's arrival, as the daemon saw them. */
  agent_rtt_us: z.int(),
});
export type Pong = z.infer<typeof pongSchema>;
