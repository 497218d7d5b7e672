import { type EvalEnd, type EvalRequest, type EvalResult, limits } from "@forkd/api";
import { BoundedText, type ByteBudget } from "./bounded-text.ts";
import type { EvalFeed } from "./eval-feed.ts";
import { type AgentEvent, type EvalReply, evalReplySchema, parseMessage } from "./messages.ts";
import type { AgentSession } from "./session.ts";
import { settle } from "./settle.ts";
import type { StreamHandlers } from "./stream.ts";

/**
 * Evaluates code in the guest's warm interpreter. When `signal` aborts, the code is interrupted and
 * the signal's reason thrown.
 */
export async function evaluate(
  session: AgentSession,
  request: EvalRequest,
  signal?: AbortSignal,
): Promise<EvalResult> {
  using stdout = new BoundedText(limits.execOutputBytesMax, session.outputs);
  using stderr = new BoundedText(limits.execOutputBytesMax, session.outputs);
  using parts = new ResultParts(session.outputs);
  const reply = await run(session, request, {
    signal,
    handlers: {
      onStdout: (chunk) => stdout.append(chunk),
      onStderr: (chunk) => stderr.append(chunk),
      onEvent: parts.onEvent,
    },
  });
  const printed = { stdout: stdout.toString(), stderr: stderr.toString() };
  return { ...endOf(reply, parts), ...printed };
}

/**
 * As {@link evaluate}, with what the code prints in `feed` as it comes. Code waits for the reader
 * of the feed until its time is over; what is not taken then is dropped beyond one window.
 */
export async function evaluateStreamed(
  session: AgentSession,
  request: EvalRequest,
  { feed, signal }: { readonly feed: EvalFeed; readonly signal: AbortSignal | undefined },
): Promise<EvalEnd> {
  using parts = new ResultParts(session.outputs);
  const timer = setTimeout(() => feed.hurry(), timeoutMsOf(request));
  try {
    const reply = await run(session, request, {
      signal,
      onOpen: (took) => feed.begin(took),
      handlers: {
        isPaced: true,
        onStdout: (chunk) => feed.push("stdout", chunk),
        onStderr: (chunk) => feed.push("stderr", chunk),
        onEvent: parts.onEvent,
      },
    });
    return { ...endOf(reply, parts), truncated: feed.truncated };
  } finally {
    clearTimeout(timer);
    feed.end();
  }
}

interface Running {
  readonly handlers: StreamHandlers;
  readonly signal: AbortSignal | undefined;
  readonly onOpen?: (took: (bytes: number) => void) => void;
}

async function run(
  session: AgentSession,
  request: EvalRequest,
  { handlers, signal, onOpen }: Running,
): Promise<EvalReply> {
  signal?.throwIfAborted();
  const timeoutMs = timeoutMsOf(request);
  const code = Buffer.from(request.code);
  const op = { op: "eval", code_bytes: code.length, timeout_ms: timeoutMs };
  const stream = session.open(op, handlers);
  onOpen?.((bytes) => stream.took(bytes));
  const payload = await settle(stream, { timeoutMs, signal, feed: () => stream.write(code) });
  return parseMessage(evalReplySchema, payload);
}

function timeoutMsOf({ timeout_secs }: EvalRequest): number {
  return Math.ceil(timeout_secs * 1000);
}

function endOf(reply: EvalReply, parts: ResultParts): Omit<EvalEnd, "truncated"> {
  return {
    result: reply.result ?? parts.text("result"),
    result_json: reply.result_json ?? parts.text("result_json"),
    error: reply.error,
    traceback: reply.traceback ?? parts.text("traceback"),
    exit_code: reply.ok ? 0 : 1,
    timed_out: reply.timed_out,
    duration_ms: reply.duration_ms,
  };
}

const partNames: readonly string[] = ["result", "result_json", "traceback"];

/** The results that were too long for one frame. */
class ResultParts implements Disposable {
  readonly #texts = new Map<string, BoundedText>();
  readonly #budget: ByteBudget;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  readonly onEvent = ({ event, part }: AgentEvent): void => {
    if (!partNames.includes(event) || part === undefined) return;
    const text = this.#texts.get(event) ?? this.#newText(event);
    text.append(Buffer.from(part));
  };

  /** Null when it did not come in parts. */
  text(name: string): string | null {
    return this.#texts.get(name)?.toString() ?? null;
  }

  [Symbol.dispose](): void {
    for (const text of this.#texts.values()) text[Symbol.dispose]();
  }

  #newText(name: string): BoundedText {
    const text = new BoundedText(limits.execOutputBytesMax, this.#budget);
    this.#texts.set(name, text);
    return text;
  }
}
