import { attestationSchema, ForkdError } from "@forkd/api";
import { z } from "zod";

/** What a guest may send, as docs/guest-protocol.md has it. A guest is hostile: all is checked. */
const shortText = z.string().max(4096);

export const helloReplySchema = z.object({
  protocol: z.literal(1),
  agent: z.string().max(64),
  boot_id: z.string().max(64),
  generation: z.int().min(0),
  gate: z.enum(["open", "closed"]),
  /** Whether the guest's processes stand still; an agent before 0.6.1 cannot hold any. */
  held: z.boolean().default(false),
  warm: z.enum(["none", "pending", "ready", "failed"]),
  runtime: z.enum(["python", "node", "none"]),
});
export type HelloReply = z.infer<typeof helloReplySchema>;

export const pongReplySchema = z.object({
  pong: z.literal(true),
  numpy_version: z.string().max(64),
  pid: z.int(),
  agent_lang: z.string().max(32),
  warmup_ready: z.boolean(),
});

export const warmReplySchema = z.object({
  runtime: z.enum(["python", "node", "none"]),
  detail: shortText.optional(),
});

/** Longer than any identity may take. */
const stepMsMax = 600_000;

/** Text that people will read: bounded, and without what commands their terminal. */
const told = (charsMax: number) => z.string().max(charsMax).transform(printable);

const hookSchema = z.object({
  name: told(256),
  ok: z.boolean(),
  detail: told(1024).optional(),
});

/** The guest's own words; its addresses are the host's, the card's is read from its kernel. */
export const identityReplySchema = attestationSchema.omit({ ip: true }).extend({
  mac: told(17).nullable().default(null),
  reseeded: z.array(told(64)).max(64).default([]),
  hooks: z.array(hookSchema).max(64),
  /** What the guest spent on each step; the rest of the round trip was the way. */
  steps_ms: z.record(z.string().max(32), z.number().min(0).max(stepMsMax)).default({}),
});

export const clockReplySchema = z.object({ clock_skew_before_ms: z.number() });

export const execReplySchema = z.object({
  exit_code: z.int().nullable(),
  signal: z.string().max(32).nullable(),
  timed_out: z.boolean(),
  duration_ms: z.number(),
});
export type ExecReply = z.infer<typeof execReplySchema>;

const execListItemSchema = z.object({
  id: z.string().max(64),
  command: told(256),
  pid: z.int(),
  tty: z.boolean(),
  attached: z.boolean(),
  started_unix: z.int(),
  from: z.int().min(0),
  bytes: z.int().min(0),
  running: z.boolean(),
  ...execReplySchema.partial().shape,
});
export type ExecListItem = z.infer<typeof execListItemSchema>;

export const execListReplySchema = z.object({ execs: z.array(execListItemSchema).max(128) });

export const evalReplySchema = z.object({
  ok: z.boolean(),
  result: z.string().nullable(),
  result_json: z.string().nullable(),
  error: z.string().nullable(),
  traceback: z.string().nullable(),
  timed_out: z.boolean(),
  duration_ms: z.number(),
});
export type EvalReply = z.infer<typeof evalReplySchema>;

export const emptyReplySchema = z.object({});

/** What was left of the hold, ms of the guest's clock. */
export const thawReplySchema = z.object({ hold_left_ms: z.int().min(0) });

export const eventSchema = z.object({
  event: z.string().max(64),
  pid: z.int().optional(),
  /** Of an exec: the offset that its output begins at, its room for input, whether a terminal. */
  from: z.int().min(0).optional(),
  input_room: z.int().min(0).max(262_144).optional(),
  tty: z.boolean().optional(),
  part: z.string().optional(),
});
export type AgentEvent = z.infer<typeof eventSchema>;

/** The longest message of an honest agent: the end of what a warm-up printed, and some words. */
const errorMessageCharsMax = 8 * 1024;
const errorSchema = z.object({ code: z.string().max(64), message: z.string() });

/** What goes to terminals and logs: without the characters that command them. */
function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is taken out.
  return text.slice(0, errorMessageCharsMax).replaceAll(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "?");
}

/** Parses one JSON payload of a guest. Throws agent_unavailable when it is not as it should be. */
export function parseMessage<T>(schema: z.ZodType<T>, payload: Buffer): T {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString("utf8"));
  } catch (error) {
    throw new ForkdError("agent_unavailable", "the guest's agent sent a malformed answer", {
      cause: error,
    });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const why = printable(z.prettifyError(parsed.error).slice(0, 500));
  throw new ForkdError("agent_unavailable", `the guest's agent sent an unexpected answer: ${why}`);
}

const codeOfAgent = {
  not_found: "exec_failed",
  no_exec: "exec_not_found",
  detached: "sandbox_busy",
  unknown_op: "snapshot_incompatible",
  bad_user: "bad_request",
  bad_cwd: "bad_request",
  bad_request: "bad_request",
  spawn_failed: "exec_failed",
  no_runtime: "bad_request",
  busy: "too_many_requests",
  too_many_streams: "too_many_requests",
  warmup_failed: "warmup_failed",
  warmup_timeout: "warmup_timeout",
  identity_failed: "identity_failed",
  hold_failed: "engine_failed",
  file_not_found: "file_not_found",
  file_exists: "file_exists",
  not_a_directory: "not_a_directory",
  is_a_directory: "is_a_directory",
  not_a_file: "not_a_file",
  not_empty: "directory_not_empty",
  denied: "file_denied",
  no_space: "guest_disk_full",
  bad_path: "bad_request",
  cut: "upload_incomplete",
  timeout: "deadline_exceeded",
  file_failed: "file_failed",
} as const;

/** An `error` frame as a thrown failure. */
export class AgentError extends ForkdError {
  /** The agent's own code, for callers that tell its refusals apart. */
  readonly agentCode: string;

  constructor(payload: Buffer) {
    const { code, message } = parseMessage(errorSchema, payload);
    const known = Object.hasOwn(codeOfAgent, code);
    // The cast is the lookup that hasOwn has just proven.
    super(
      known ? codeOfAgent[code as keyof typeof codeOfAgent] : "agent_unavailable",
      printable(message),
    );
    this.agentCode = code;
  }
}
