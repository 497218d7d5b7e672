import type { ErrorCode } from "@forkd/api";
import { ForkdError, isErrorCode, limits, problemSchema } from "@forkd/api";

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

/** The daemon's own failure; for an answer in another shape (a proxy's), the nearest code. */
export function problemError({ status, headers }: Response, text: string): ForkdError {
  const problem = problemSchema.safeParse(tryJson(text));
  if (problem.success && isErrorCode(problem.data.code)) {
    const { code, error, hint } = problem.data;
    return new ForkdError(code, error, { hint, ...retryAfter(headers) });
  }
  const words = text.trim().slice(0, 200);
  return new ForkdError(statusCodes[status] ?? "internal", `HTTP ${status}: ${words}`, {
    hint: "check that FORKD_URL is the address of a forkd daemon",
  });
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
