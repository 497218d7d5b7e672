import type { JsonObject } from "./tool.ts";

/**
 * Characters of one text that a guest wrote, in one result. A guest may print 8 MiB a stream, which
 * no model can read; what is longer loses its middle.
 */
export const outputCharsMax = 64 * 1024;

/** Fields that a guest fills. */
const guestFields = ["stdout", "stderr", "result", "result_json", "error", "traceback"];

/** A result whose texts a model can read. */
export function cutOutputs(answer: JsonObject): JsonObject {
  const long = guestFields.filter((name) => isLong(answer[name]));
  if (long.length === 0) return answer;
  const cut = long.map((name) => [name, cut1(String(answer[name]))]);
  const flag = "truncated" in answer ? { truncated: true } : {};
  return { ...answer, ...Object.fromEntries(cut), ...flag };
}

function isLong(value: unknown): boolean {
  return typeof value === "string" && value.length > outputCharsMax;
}

function cut1(text: string): string {
  const half = outputCharsMax / 2;
  const left = text.length - outputCharsMax;
  return `${text.slice(0, half)}\n[${left} characters left out]\n${text.slice(-half)}`;
}
