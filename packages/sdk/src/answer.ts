import type { ErrorCode } from "@forkd/api";
import { ForkdError, isErrorCode, limits, problemSchema } from "@forkd/api";
import { ControllerError } from "./errors.ts";

/** Two streams of the largest exec output, each byte escaped in JSON at its worst (`\u0000`). */
const answerBytesMax = 2 * 6 * limits.execOutputBytesMax + 1024 * 1024;

/** The whole body as text. Throws internal when it is longer than any answer of a daemon. */
export async function readText(response: Response): Promise<string> {
  if (response.body === null) return "";
  const decoder = new TextDecoder();
  let text = "";
  let sizeBytes = 0;
  for await (const chunk of response.body) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > answerBytesMax) {
      throw new ForkdError("internal", `the answer is longer than ${answerBytesMax} bytes`);
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

const statusCodes: Readonly<Record<number, ErrorCode>> = {
  401: "unauthorized",
  403: "forbidden",
  404: "route_not_found",
  429: "too_many_requests",
};

/** A daemon's answer that has arrived as a whole. */
export interface Answer {
  readonly ok: boolean;
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/** The daemon's own failure; for an answer in another shape (a proxy's), the nearest code. */
export function problemError({ status, headers, text }: Answer, url: string): ControllerError {
  const json = tryJson(text);
  const problem = problemSchema.safeParse(json);
  const answer = { status, url, body: json ?? text, ...retryAfter(headers) };
  if (problem.success && isErrorCode(problem.data.code)) {
    const { code, error, hint } = problem.data;
    return new ControllerError(code, error, { ...answer, hint });
  }
  const words = text.trim().slice(0, 200);
  return new ControllerError(statusCodes[status] ?? "internal", `HTTP ${status}: ${words}`, {
    ...answer,
    hint: "check that FORKD_URL is the address of a forkd daemon",
  });
}

/** What a failed connection is to the caller. */
export function unreachable(baseUrl: string, cause: unknown): ForkdError {
  const reason = `no daemon answers at ${baseUrl}: ${describe(cause)}`;
  return new ForkdError("daemon_unreachable", reason, { cause });
}

/** fetch hides the reason (ECONNREFUSED and the like) in its error's cause. */
function describe(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const { cause } = thrown;
  if (!(cause instanceof Error)) return thrown.message;
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : "";
  return cause.message === "" ? code : cause.message;
}

/** Only the form in seconds, which is what a daemon sends. */
function retryAfter(headers: Headers): { readonly retryAfterSecs?: number } {
  const text = headers.get("retry-after") ?? "";
  return /^\d{1,6}$/.test(text) ? { retryAfterSecs: Number(text) } : {};
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
