import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { boundedSignal, orAborted, sleep, withDeadline } from "@forkd/host/lib/deadline.ts";
import { Semaphore } from "@forkd/host/lib/semaphore.ts";

test("a deadline names what took too long", async () => {
  const { promise } = Promise.withResolvers<void>();
  await assert.rejects(withDeadline(promise, 5, "the thing"), {
    code: "deadline_exceeded",
    message: "the thing took longer than 5 ms",
  });
  assert.equal(await withDeadline(Promise.resolve(7), 5, "x"), 7);
});

test("who waits for work stops when it is aborted, and the work goes on", async () => {
  const { promise, reject } = Promise.withResolvers<number>();
  const abort = new AbortController();
  const waiting = orAborted(promise, abort.signal);
  abort.abort(new Error("enough"));
  await assert.rejects(waiting, { message: "enough" });
  await assert.rejects(orAborted(promise, abort.signal), { message: "enough" });
  // What comes of it afterwards is nobody's, and ends no process.
  reject(new Error("later"));
  assert.equal(await orAborted(Promise.resolve(7), new AbortController().signal), 7);
  assert.equal(await orAborted(Promise.resolve(7), undefined), 7);
});

test("a bounded signal aborts with its bound, or with the one that it was given", async () => {
  const late = () => new ForkdError("deadline_exceeded", "late");
  const reasonOf = async ({ signal }: { readonly signal: AbortSignal }): Promise<unknown> => {
    if (!signal.aborted) await once(signal, "abort");
    return signal.reason;
  };
  using bound = boundedSignal(undefined, { ms: -1, late });
  assert.deepEqual(await reasonOf(bound), late());
  const abort = new AbortController();
  using given = boundedSignal(abort.signal, { ms: null, late });
  assert.equal(given.signal.aborted, false);
  abort.abort("given");
  assert.equal(await reasonOf(given), "given");
});

test("a sleep ends early when aborted", async () => {
  const abort = new AbortController();
  const sleeping = sleep(60_000, abort.signal);
  abort.abort(new Error("up"));
  await assert.rejects(sleeping, { message: "up" });
  await assert.rejects(sleep(60_000, abort.signal), { message: "up" });
  await sleep(1);
});

test("a semaphore never admits more than its places, and serves in order", async () => {
  const semaphore = new Semaphore({ places: 2, waitingMax: 10, what: "tests" });
  let inside = 0;
  let most = 0;
  const order: number[] = [];
  const work = (n: number) => async (): Promise<void> => {
    inside += 1;
    most = Math.max(most, inside);
    order.push(n);
    await sleep(1);
    inside -= 1;
  };
  await Promise.all([0, 1, 2, 3, 4].map((n) => semaphore.run(work(n))));
  assert.equal(most, 2);
  assert.deepEqual(order, [0, 1, 2, 3, 4]);
});

test("a full queue answers busy, and a place is free again after a failure", async () => {
  const semaphore = new Semaphore({ places: 1, waitingMax: 1, what: "tests" });
  const { promise, resolve } = Promise.withResolvers<void>();
  const first = semaphore.run(() => promise);
  const second = semaphore.run(() => Promise.reject(new Error("broken")));
  await assert.rejects(
    semaphore.run(() => Promise.resolve()),
    { code: "busy", retryAfterSecs: 1, message: /1 of 1 tests wait already/ },
  );
  resolve();
  await first;
  await assert.rejects(second, { message: "broken" });
  assert.equal(await semaphore.run(() => Promise.resolve(1)), 1);
});

test("room for many is there at once or not at all", async () => {
  const semaphore = new Semaphore({ places: 2, waitingMax: 3, what: "tests" });
  semaphore.requireRoom(5);
  assert.throws(() => semaphore.requireRoom(6), { code: "busy" });
  const { promise, resolve } = Promise.withResolvers<void>();
  const running = [1, 2, 3].map(() => semaphore.run(() => promise));
  semaphore.requireRoom(2);
  assert.throws(() => semaphore.requireRoom(3), { code: "busy" });
  resolve();
  await Promise.all(running);
  semaphore.requireRoom(5);
});

test("who waits for a place may go, and takes none", async () => {
  const semaphore = new Semaphore({ places: 1, waitingMax: 2, what: "tests" });
  const { promise, resolve } = Promise.withResolvers<void>();
  const first = semaphore.run(() => promise);
  const abort = new AbortController();
  const gone = semaphore.run(() => assert.fail("it began"), abort.signal);
  const third = semaphore.run(() => Promise.resolve("third"));
  abort.abort(new Error("left"));
  await assert.rejects(gone, { message: "left" });
  semaphore.requireRoom(1);
  resolve();
  await first;
  assert.equal(await third, "third");
  await assert.rejects(
    semaphore.run(() => assert.fail("it began"), abort.signal),
    { message: "left" },
  );
});
