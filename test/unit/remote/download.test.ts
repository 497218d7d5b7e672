import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { test } from "node:test";
import { type DownloadOrder, download } from "@forkd/host/remote/download.ts";
import { PartialFile } from "@forkd/host/remote/partials.ts";
import type { ReadFrom, RemoteObject } from "@forkd/host/remote/remote.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

interface Answer {
  /** The whole object. */
  readonly text: string;
  readonly version: string | null;
  /** The body breaks after this many bytes of it. */
  readonly cutAfter?: number;
}

/** A remote that answers in this order, the last answer again and again. */
class PlayedRemote implements RemoteObject {
  readonly name = "played";
  readonly reads: ReadFrom[] = [];
  readonly #answers: readonly Answer[];

  constructor(answers: readonly Answer[]) {
    this.#answers = answers;
  }

  stat(): Promise<never> {
    return assert.fail("nobody asks");
  }

  write(): Promise<never> {
    return assert.fail("nobody writes");
  }

  async read(from: ReadFrom) {
    const answer = this.#answers[Math.min(this.reads.length, this.#answers.length - 1)];
    this.reads.push(from);
    assert.ok(answer !== undefined);
    const { text, version, cutAfter } = answer;
    const offset = from.version === null || from.version === version ? from.offset : 0;
    const body = Readable.from(pieces(text.slice(offset), cutAfter));
    return { offset, version, sizeBytes: text.length, sha256: null, body };
  }
}

async function* pieces(text: string, cutAfter: number | undefined): AsyncGenerator<Buffer> {
  yield Buffer.from(text.slice(0, cutAfter));
  if (cutAfter === undefined) return;
  // What was sent is taken first, as from a connection that breaks later.
  await new Promise((resolve) => setTimeout(resolve, 20));
  throw new Error("cut");
}

async function fetched(answers: readonly Answer[], more: Partial<DownloadOrder> = {}) {
  await using dir = await makeTmpDir("download");
  const partial = new PartialFile(dir.path, "it");
  const from = new PlayedRemote(answers);
  const order: DownloadOrder = {
    from,
    partial,
    sha256: null,
    bytesMax: 1000,
    retry: { triesMax: 3, firstWaitMs: 1, longestWaitMs: 1, onRetry: () => undefined },
    onProgress: () => undefined,
    signal: new AbortController().signal,
    ...more,
  };
  const done = await download(order).catch((error: unknown) => error);
  const text = await readFile(partial.file, "utf8").catch(() => null);
  return { done, text, reads: from.reads.length };
}

const text = "0123456789";

test("goes on for as long as there is progress", async () => {
  const cuts = [2, 1, 1, 1, 1].map((cutAfter) => ({ text, version: '"a"', cutAfter }));
  const { text: whole, reads } = await fetched([...cuts, { text, version: '"a"' }]);
  assert.equal(whole, text);
  assert.equal(reads, 6);
});

test("is not kept busy by an object that is always another one", async () => {
  const answers = Array.from({ length: 50 }, (_, n) => ({ text, version: `"${n}"`, cutAfter: 5 }));
  const { done, reads } = await fetched(answers);
  assert.equal((done as { code: string }).code, "remote_unreachable");
  assert.ok(reads <= 4, `${reads} reads`);
});

test("never takes more than it may", async () => {
  const { done } = await fetched([{ text, version: null }], { bytesMax: 9 });
  assert.equal((done as { code: string }).code, "remote_corrupt");
});

test("stops between tries when it is told to", async () => {
  const stop = new AbortController();
  const reason = new Error("enough");
  const retry = {
    triesMax: 100,
    firstWaitMs: 60_000,
    longestWaitMs: 60_000,
    onRetry: () => stop.abort(reason),
  };
  const answers = [{ text, version: '"a"', cutAfter: 5 }];
  const { done, text: kept } = await fetched(answers, { retry, signal: stop.signal });
  assert.equal(done, reason);
  assert.equal(kept, "01234");
});
