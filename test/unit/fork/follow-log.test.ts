import assert from "node:assert/strict";
import { appendFile, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { limits } from "@forkd/api";
import { followLog, type LogWatch } from "@forkd/host/fork/follow-log.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

/** Longer than any test may take: what ends a wait is an event. */
const silenceMs = 600_000;

async function makeLog(text: string) {
  const tmp = await makeTmpDir("follow-log");
  const workDir = join(tmp.path, "sb-1");
  await mkdir(workDir);
  const log = join(workDir, "vmm.log");
  await writeFile(log, text);
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  const follow = (more: Partial<LogWatch> = {}) =>
    followLog({ workDir, from: 0, ended, signal: AbortSignal.any([]), silenceMs, ...more });
  return { tmp, workDir, log, end, follow };
}

const all = async (texts: AsyncIterable<string>): Promise<string[]> => {
  const seen: string[] = [];
  for await (const text of texts) seen.push(text);
  return seen;
};

test("what is printed comes at once, and the last words after the directory is gone", async () => {
  const { tmp, workDir, log, end, follow } = await makeLog("old");
  await using _ = tmp;
  const texts = follow({ from: 3 });
  const next = texts.next();
  await appendFile(log, "new \x1b[31m\xfc\n");
  assert.equal((await next).value, "new \ufffd[31mü\n");
  await appendFile(log, "last");
  await rm(workDir, { recursive: true });
  end();
  assert.deepEqual(await all(texts), ["last"]);
});

test("a log that grew for long is told in pieces, with characters whole", async () => {
  const text = "ü".repeat(limits.logBytesMax);
  const { tmp, end, follow } = await makeLog(`x${text}`);
  await using _ = tmp;
  end();
  const pieces = await all(follow());
  assert.equal(pieces.join(""), `x${text}`);
  assert.ok(pieces.length >= 2 && pieces.every((piece) => piece.length <= limits.logBytesMax));
});

test("silence is told, and an abort ends it", async () => {
  const { tmp, follow } = await makeLog("");
  await using _ = tmp;
  const stop = new AbortController();
  const texts = follow({ silenceMs: 1, signal: stop.signal });
  assert.equal((await texts.next()).value, "");
  stop.abort();
  assert.deepEqual(await all(texts), []);
});

test("a sandbox without a log is followed to its end", async () => {
  const { tmp, workDir, log, end, follow } = await makeLog("");
  await using _ = tmp;
  await rm(log);
  const texts = all(follow({ workDir }));
  end();
  assert.deepEqual(await texts, []);
});
