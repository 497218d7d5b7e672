import assert from "node:assert/strict";
import { test } from "node:test";
import { mapBounded } from "@forkd/host/cli/children.ts";
import { Stopped, untilStopped } from "@forkd/host/cli/interrupt.ts";

test("a stop ends the wait, not the work", async () => {
  const controller = new AbortController();
  const { promise: work, resolve } = Promise.withResolvers<string>();
  const waiting = untilStopped(work, controller.signal);
  controller.abort(new Stopped("SIGTERM"));
  await assert.rejects(waiting, { name: "Stopped", signal: "SIGTERM" });
  resolve("done");
  assert.equal(await work, "done");
});

test("a stop that came before is seen", async () => {
  const signal = AbortSignal.abort(new Stopped("SIGINT"));
  await assert.rejects(untilStopped(Promise.resolve(1), signal), { signal: "SIGINT" });
});

test("a bounded map keeps the order and the bound, and fails as one", async () => {
  let running = 0;
  let most = 0;
  const double = async (item: number): Promise<number> => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setImmediate(resolve));
    running -= 1;
    return item * 2;
  };
  const items = Array.from({ length: 100 }, (_, index) => index);
  assert.deepEqual(
    await mapBounded(items, double),
    items.map((item) => item * 2),
  );
  assert.equal(most, 32);
  assert.deepEqual(await mapBounded([], double), []);
  await assert.rejects(mapBounded(items, () => Promise.reject(new Error("no"))));
});
