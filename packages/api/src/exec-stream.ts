import { z } from "zod";
import { execIdSchema } from "./ids.ts";
import { limits } from "./limits.ts";
import { argSchema, execRequestSchema } from "./sandbox.ts";

/** The subprotocol that both ends of `/exec/stream` speak; the only one. */
export const execSubprotocol = "forkd.exec.v1";
/**
 * Where a client that cannot set headers (a browser's WebSocket) puts the token: a second
 * subprotocol, this prefix and then the token in base64url. Never in the address, which is logged.
 */
export const tokenSubprotocolPrefix = "forkd.bearer.";

/** First byte of every binary message; the rest is the data. */
export const execChannel = { stdin: 0, stdout: 1, stderr: 2 } as const;

const sideSchema = z.int().min(1).max(limits.terminalSideMax);
const sizeFields = { rows: sideSchema, cols: sideSchema };
/** A terminal's size in characters. */
export const terminalSizeSchema = z.object(sizeFields);
export type TerminalSize = z.infer<typeof terminalSizeSchema>;

const onCloseSchema = z.enum(["kill", "keep"]);
const flowSchema = z.enum(["auto", "client"]);

/** The first message of a client that runs a new command. */
export const execStartSchema = z.object({
  type: z.literal("start"),
  args: z.array(argSchema).min(1).max(limits.execArgsMax),
  env: execRequestSchema.shape.env,
  cwd: execRequestSchema.shape.cwd,
  user: execRequestSchema.shape.user,
  /** Whether input will come; without, the command reads /dev/null. */
  stdin: z.boolean().default(false),
  /** The size of the terminal to give it, which then takes input and has one output. */
  tty: terminalSizeSchema.nullish(),
  timeout_secs: z
    .number()
    .positive()
    .max(limits.execTimeoutMaxSecs)
    .default(limits.execTimeoutMaxSecs),
  /** What happens to the command when the connection ends before it. */
  on_close: onCloseSchema.default("kill"),
  /** Who says that output was consumed: the socket, or the client with `credit` messages. */
  flow: flowSchema.default("auto"),
});
export type ExecStart = z.infer<typeof execStartSchema>;

/** The first message of a client that returns to a command. Who was attached is detached. */
export const execAttachSchema = z.object({
  type: z.literal("attach"),
  exec_id: execIdSchema,
  /** The first byte of output to send; what is not kept any more is left out. */
  offset: z.int().min(0).default(0),
  on_close: onCloseSchema.default("keep"),
  flow: flowSchema.default("auto"),
});
export type ExecAttach = z.infer<typeof execAttachSchema>;

/** `SIGINT` and the like; the daemon knows Linux' own. */
const signalSchema = z.string().regex(/^SIG[A-Z0-9]{2,8}$/, "is not the name of a signal");
const creditSchema = z.object({
  type: z.literal("credit"),
  bytes: z.int().min(1).max(limits.execWindowBytes),
});

/** Every text message of a client. */
export const execClientMessageSchema = z.discriminatedUnion("type", [
  execStartSchema,
  execAttachSchema,
  creditSchema,
  z.object({ type: z.literal("stdin_end") }),
  z.object({ type: z.literal("resize"), ...sizeFields }),
  z.object({ type: z.literal("signal"), signal: signalSchema }),
  /** Leave the command running, whatever on_close says. */
  z.object({ type: z.literal("detach") }),
]);
export type ExecClientMessage = z.infer<typeof execClientMessageSchema>;

/** How a command ended; `exit_code` is negative for a signal, as in ExecResult. */
const endFields = {
  exit_code: z.int(),
  signal: z.string().nullable(),
  timed_out: z.boolean(),
  duration_ms: z.number(),
};
export const execEndSchema = z.object(endFields);
export type ExecEnd = z.infer<typeof execEndSchema>;

/** Every text message of the daemon. `exit`, `detached` and `error` are the last one. */
export const execServerMessageSchema = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("started"),
    exec_id: z.string(),
    pid: z.int(),
    tty: z.boolean(),
    /** Of the first byte of output that will come; over the one asked for when some is gone. */
    offset: z.int(),
    /** Bytes of input that may be sent now. */
    stdin_credit: z.int(),
  }),
  /** More input may be sent. */
  z.object({ type: z.literal("credit"), bytes: z.int() }),
  z.object({ type: z.literal("exit"), ...endFields }),
  z.object({ type: z.literal("detached"), reason: z.string() }),
  z.object({ type: z.literal("error"), error: z.string(), code: z.string(), hint: z.string() }),
]);
export type ExecServerMessage = z.infer<typeof execServerMessageSchema>;

/** A command of a sandbox that was started over `/exec/stream`. */
export const execInfoSchema = z.object({
  exec_id: z.string(),
  /** The first word of the command, at most 64 bytes of it. */
  command: z.string(),
  pid: z.int(),
  tty: z.boolean(),
  attached: z.boolean(),
  running: z.boolean(),
  started_at_unix: z.int(),
  /** Offsets of the output that is kept: from the first, to before the second. */
  output_from: z.int(),
  output_bytes: z.int(),
  /** Null while it runs. */
  end: execEndSchema.nullable(),
});
export type ExecInfo = z.infer<typeof execInfoSchema>;
