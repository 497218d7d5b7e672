import { Readable } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";

/** Characters of a text that become JSON in one go; where all need an escape, a few milliseconds. */
const pieceChars = 16 * 1024;
/** An answer with a longer text is sent in pieces. */
const wholeCharsMax = 4 * pieceChars;

/**
 * What to send for an answer. One that holds much of a guest's output becomes a stream: to write it
 * as JSON at once would keep the event loop for seconds.
 */
export function answerBody(answer: unknown): unknown {
  if (typeof answer !== "object" || answer === null || Array.isArray(answer)) return answer;
  const isLong = Object.values(answer).some(
    (value) => typeof value === "string" && value.length > wholeCharsMax,
  );
  return isLong ? Readable.from(objectPieces(answer)) : answer;
}

async function* objectPieces(answer: object): AsyncGenerator<string> {
  let before = "{";
  for (const [name, value] of Object.entries(answer)) {
    if (value === undefined) continue;
    yield `${before}${JSON.stringify(name)}:`;
    if (typeof value === "string") yield* textPieces(value);
    else yield JSON.stringify(value);
    before = ",";
  }
  yield before === "{" ? "{}" : "}";
}

/** Half of a pair of surrogates is written as an escape: a cut between two changes nothing. */
async function* textPieces(text: string): AsyncGenerator<string> {
  yield '"';
  for (let at = 0; at < text.length; at += pieceChars) {
    yield JSON.stringify(text.slice(at, at + pieceChars)).slice(1, -1);
    await nextTurn();
  }
  yield '"';
}
