import {
  type EvalEvent,
  type EvalResult,
  evalEventSchema,
  ForkdError,
  isErrorCode,
  limits,
} from "@forkd/api";
import type { Client } from "./client.ts";
import type { CallControl } from "./deadline.ts";
import { serverEvents } from "./sse.ts";

/** Three texts of a result at their bound, each byte escaped at its worst, and some words. */
const eventCharsMax = 3 * 6 * limits.execOutputBytesMax + 64 * 1024;
/** What the daemon may need on top of the time that the code has. */
const slackMs = 10_000;

/** Who is told what code prints; the code waits for a promise that is returned. */
export type OnEvalOutput = (text: string, from: "stdout" | "stderr") => unknown;

/** How code is followed. `timeoutMs` is 10 s more than `timeoutSecs` unless it is given. */
export interface StreamEvalOptions extends Pick<CallControl, "signal" | "timeoutMs"> {
  /** Seconds until the code is interrupted; what it waits for its reader counts. Default: 30. */
  readonly timeoutSecs?: number | undefined;
}

/** How code is evaluated. */
export interface EvalOptions extends StreamEvalOptions, CallControl {
  /** Is told what the code prints, as it comes. */
  readonly onOutput?: OnEvalOutput | undefined;
}

/** What evaluated code prints or ends with; an `error` is thrown instead. */
export type EvalProgress = Exclude<EvalEvent, { readonly type: "error" }>;

/**
 * Evaluates code and gives what it prints as it comes, the result last. The code waits for who
 * does not read; to leave the loop, or to abort, interrupts it. Throws as Client.call, and
 * daemon_unreachable for an answer that was cut off.
 */
export async function* streamEval(
  client: Client,
  id: string,
  { code, timeoutSecs, timeoutMs, signal }: StreamEvalOptions & { readonly code: string },
): AsyncGenerator<EvalProgress, void> {
  const granted = (timeoutSecs ?? limits.evalTimeoutDefaultSecs) * 1000 + slackMs;
  const stream = await client.open("streamEval", {
    params: { id },
    json: { code, ...(timeoutSecs !== undefined && { timeout_secs: timeoutSecs }) },
    timeoutMs: timeoutMs ?? granted,
    signal,
  });
  for await (const data of serverEvents(stream, eventCharsMax)) {
    if (data === null) continue;
    const event = evalEventSchema.parse(JSON.parse(data));
    if (event.type === "error") throw failureOf(event);
    yield event;
    if (event.type === "result") return;
  }
  throw stream.ending(new Error("the answer ended before the result of the code"));
}

function failureOf({ code, error, hint }: Extract<EvalEvent, { type: "error" }>): ForkdError {
  return new ForkdError(isErrorCode(code) ? code : "internal", error, { hint });
}

/** The result of code whose output was handed on: both outputs of the result are empty. */
export async function evalWith(
  client: Client,
  id: string,
  {
    onOutput,
    ...options
  }: EvalOptions & { readonly code: string; readonly onOutput: OnEvalOutput },
): Promise<EvalResult> {
  for await (const event of streamEval(client, id, options)) {
    if (event.type !== "result") {
      await Promise.resolve(onOutput(event.text, event.type));
      continue;
    }
    const { type, truncated, ...end } = event;
    return { ...end, stdout: "", stderr: "" };
  }
  throw new ForkdError("internal", "a streamed eval ended without a result");
}
