import {
  type ExecAttach,
  type ExecEnd,
  type ExecId,
  type ExecInfo,
  type ExecStart,
  execChannel,
  ForkdError,
  type TerminalSize,
} from "@forkd/api";
import { withDeadline } from "../lib/deadline.ts";
import { exitCode, signalNumbers } from "./guest.ts";
import {
  type AgentEvent,
  type ExecListItem,
  type ExecReply,
  emptyReplySchema,
  execListReplySchema,
  execReplySchema,
  parseMessage,
} from "./messages.ts";
import type { AgentSession } from "./session.ts";
import { type AgentStream, initialCreditBytes } from "./stream.ts";

/** An answer of the agent; while a branch holds the guest it waits for the end of that. */
const answerTimeoutMs = 60_000;

/** What a command is once its stream shows it. */
export interface ExecStarted {
  readonly id: ExecId;
  readonly pid: number;
  readonly tty: boolean;
  /** Offset of the first byte of output that will come. */
  readonly offset: number;
  /** Bytes of input that there is room for. */
  readonly stdinRoom: number;
}

/** Who takes what a command gives. */
export interface ExecSink {
  /** Once, before any output. */
  readonly onStarted: (started: ExecStarted) => void;
  /** `channel` is execChannel.stdout or .stderr; the chunk is valid until this returns. */
  readonly onOutput: (channel: number, chunk: Buffer) => void;
}

/** A new command, or one to return to; `exec_id` is known in both cases. */
export interface ExecOrder {
  readonly request: ExecStart | ExecAttach;
  readonly id: ExecId;
}

/**
 * A command of a guest that outlives this stream (docs/guest-protocol.md). Its output is under
 * flow control to the very end: the caller says with {@link ExecStream.credit} what was consumed.
 */
export class ExecStream {
  readonly id: ExecId;
  /** How the command ended. Rejects with AgentError (`detached` too) and what the session throws. */
  readonly ended: Promise<ExecEnd>;
  readonly #session: AgentSession;
  readonly #stream: AgentStream;
  readonly #started = Promise.withResolvers<void>();

  private constructor(session: AgentSession, order: ExecOrder, sink: ExecSink) {
    this.id = order.id;
    this.#session = session;
    this.#stream = session.open(opOf(order), {
      isPaced: true,
      onStdout: (chunk) => sink.onOutput(execChannel.stdout, chunk),
      onStderr: (chunk) => sink.onOutput(execChannel.stderr, chunk),
      onEvent: (event) => this.#onEvent(event, sink),
    });
    this.ended = this.#run();
    this.ended.catch(() => undefined);
  }

  /** Sends the request. Throws what AgentSession.open throws. */
  static open(session: AgentSession, order: ExecOrder, sink: ExecSink): ExecStream {
    return new ExecStream(session, order, sink);
  }

  /** Sends input as the guest has room for it. */
  write(data: Uint8Array): Promise<void> {
    return this.#stream.write(data);
  }

  endInput(): void {
    this.#stream.endInput();
  }

  /** So much output was consumed. */
  credit(bytes: number): void {
    this.#stream.took(bytes);
  }

  /**
   * To the command's process group; with a terminal, to the one in its foreground. Throws
   * bad_request for a name that Linux does not know.
   */
  async signal(name: string): Promise<void> {
    await this.#ask({ op: "exec_signal", signal: signalNumber(name) });
  }

  /** Throws bad_request for a command without a terminal. */
  async resize({ rows, cols }: TerminalSize): Promise<void> {
    await this.#ask({ op: "exec_resize", rows, cols });
  }

  /** Lets the command run on without this stream, or kills it. `ended` is settled by that. */
  async leave(fate: "keep" | "kill"): Promise<void> {
    this.#stream.release();
    await this.#ask({ op: "exec_detach", stream: this.#stream.id });
    if (fate === "kill") await this.#ask({ op: "exec_forget" });
  }

  async #ask(op: object): Promise<void> {
    await this.#session.request({ ...op, id: this.id }, emptyReplySchema, answerTimeoutMs);
  }

  async #run(): Promise<ExecEnd> {
    try {
      const begun = Promise.race([this.#started.promise, this.#stream.reply]);
      await withDeadline(begun, answerTimeoutMs, "the start of a command");
      return endOf(parseMessage(execReplySchema, await this.#stream.reply));
    } catch (error) {
      // One that did not start in time may start yet; nobody would end it.
      this.#stream.kill();
      throw error;
    } finally {
      this.#stream.release();
    }
  }

  #onEvent({ event, pid, from, input_room, tty }: AgentEvent, sink: ExecSink): void {
    if (event !== "attached") return;
    const stdinRoom = input_room ?? initialCreditBytes;
    this.#stream.limitInput(stdinRoom);
    this.#started.resolve();
    const { id } = this;
    sink.onStarted({ id, pid: pid ?? 0, tty: tty ?? false, offset: from ?? 0, stdinRoom });
  }
}

/** The newest first. */
export async function listExecs(session: AgentSession): Promise<ExecInfo[]> {
  const { execs } = await session.request(
    { op: "exec_list" },
    execListReplySchema,
    answerTimeoutMs,
  );
  return execs.map(infoOf);
}

/** Kills a command if it runs, and forgets it. Throws exec_not_found. */
export async function forgetExec(session: AgentSession, id: ExecId): Promise<void> {
  await session.request({ op: "exec_forget", id }, emptyReplySchema, answerTimeoutMs);
}

function opOf({ request, id }: ExecOrder): object {
  if (request.type === "attach") return { op: "exec_attach", id, from: request.offset };
  return {
    op: "exec_start",
    id,
    argv: request.args,
    env: request.env,
    ...(request.cwd == null ? {} : { cwd: request.cwd }),
    ...(request.user == null ? {} : { user: request.user }),
    ...(request.tty == null ? {} : { tty: request.tty }),
    stdin: request.stdin,
    timeout_ms: Math.ceil(request.timeout_secs * 1000),
  };
}

function infoOf(item: ExecListItem): ExecInfo {
  const { exit_code = null, signal = null, timed_out = false, duration_ms = 0 } = item;
  const end = item.running ? null : endOf({ exit_code, signal, timed_out, duration_ms });
  return {
    exec_id: item.id,
    command: item.command,
    pid: item.pid,
    tty: item.tty,
    attached: item.attached,
    running: item.running,
    started_at_unix: item.started_unix,
    output_from: item.from,
    output_bytes: item.bytes,
    end,
  };
}

function endOf(reply: ExecReply): ExecEnd {
  return { ...reply, exit_code: exitCode(reply.exit_code, reply.signal) };
}

function signalNumber(name: string): number {
  const number = signalNumbers[name];
  if (number !== undefined) return number;
  throw new ForkdError("bad_request", `${name} is not a signal`, {
    hint: "use a name of signal(7), for example SIGINT",
  });
}
