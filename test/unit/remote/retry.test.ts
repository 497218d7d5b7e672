import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { Patience, retrying, retryLater } from "@forkd/host/remote/retry.ts";

const never = new AbortController().signal;

function watched(triesMax: number) {
  const waits: number[] = [];
  const onRetry = (_: ForkdError, waitMs: number): void => void waits.push(waitMs);
  return { waits, options: { triesMax, firstWaitMs: 4, longestWaitMs: 10, onRetry } };
}

test("tries again as often as it may, and waits longer each time, up to a bound", async () => {
  const { waits, options } = watched(5);
  let tries = 0;
  const work = (): Promise<never> => {
    tries += 1;
    return Promise.reject(new ForkdError("remote_unreachable", "no"));
  };
  await assert.rejects(retrying(options, never, work), { code: "remote_unreachable" });
  assert.equal(tries, 5);
  assert.equal(waits.length, 4);
  for (const [n, longest] of [4, 8, 10, 10].entries()) {
    const wait = waits[n] ?? assert.fail();
    assert.ok(wait >= longest / 2 && wait <= longest, `${wait} of ${longest}`);
  }
});

test("tries once what would fail again, and not after an abort", async () => {
  const { waits, options } = watched(5);
  for (const error of [new ForkdError("remote_refused", "no"), new TypeError("ours")]) {
    await assert.rejects(
      retrying(options, never, () => Promise.reject(error)),
      error,
    );
  }
  const reason = new Error("stopped");
  const stopped = AbortSignal.abort(reason);
  const failure = new ForkdError("remote_unreachable", "no");
  await assert.rejects(
    retrying(options, stopped, () => Promise.reject(failure)),
    reason,
  );
  assert.deepEqual(waits, []);
});

test("counts anew after progress", async () => {
  const { waits, options } = watched(2);
  const patience = new Patience(options);
  const failure = new ForkdError("remote_unreachable", "no");
  for (let n = 0; n < 3; n += 1) {
    await patience.failed(failure, never);
    patience.reset();
  }
  assert.equal(waits.length, 3);
  await patience.failed(failure, never);
  await assert.rejects(patience.failed(failure, never), failure);
});

test("reads Retry-After as seconds or a date, and nothing else", () => {
  assert.equal(retryLater("x", "7").retryAfterSecs, 7);
  const date = new Date(Date.now() + 90_000).toUTCString();
  const asked = retryLater("x", date).retryAfterSecs ?? 0;
  assert.ok(asked > 60 && asked <= 90);
  for (const text of [undefined, "", "soon", "-5", "1e9", "Thu, 01 Jan 1970 00:00:00 GMT"]) {
    assert.equal(retryLater("x", text).retryAfterSecs, 5, String(text));
  }
});

test("waits as long as it was asked to, within its own bound", async () => {
  const { waits, options } = watched(3);
  const stop = new AbortController();
  const failing = new Patience(options).failed(retryLater("x", "3000"), stop.signal);
  stop.abort(new Error("enough"));
  await assert.rejects(failing, /enough/);
  assert.deepEqual(waits, [60_000]);
});
