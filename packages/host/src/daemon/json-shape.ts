import { ForkdError, limits } from "@forkd/api";

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const openers: ReadonlySet<number> = new Set([0x5b, 0x7b]);
const closers: ReadonlySet<number> = new Set([0x5d, 0x7d]);

/**
 * Throws bad_request for JSON that is nested too deep, or has too many values, before it is parsed:
 * two megabytes of brackets or commas become hundreds of megabytes of objects, and each value that
 * is wrong becomes a complaint of the validation. Malformed text is left to the parser.
 */
export function checkJsonShape(text: string): void {
  let depth = 0;
  let values = 1;
  let isInText = false;
  for (let at = 0; at < text.length; at += 1) {
    const char = text.charCodeAt(at);
    if (char === quote) isInText = !isInText;
    else if (isInText && char === backslash) at += 1;
    else if (isInText) continue;
    else if (openers.has(char)) depth += 1;
    else if (closers.has(char)) depth -= 1;
    else if (char === comma) values += 1;
    if (depth > limits.jsonDepthMax) throw refusal(`nested more than ${limits.jsonDepthMax} deep`);
    if (values > limits.jsonValuesMax) throw refusal(`of more than ${limits.jsonValuesMax} values`);
  }
}

function refusal(what: string): ForkdError {
  return new ForkdError("bad_request", `the body is JSON ${what}`, {
    hint: "the bounds are in docs/limits.md",
  });
}
