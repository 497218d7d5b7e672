import assert from "node:assert/strict";
import { test } from "node:test";
import { noLimits } from "@forkd/host/fork/asked-limits.ts";
import { Controller, ControllerError, GuestEvalError, Sandbox, Snapshot } from "@forkd/sdk";
import {
  busy,
  empty,
  type FakeFetch,
  fakeFetch,
  json,
  notFound,
} from "../../helpers/fake-fetch.ts";
import { FakeService } from "../../helpers/fake-service.ts";

const service = new FakeService();
const [spawned] = await service.spawn({
  tag: "base",
  count: 1,
  limits: noLimits,
  minIsolation: null,
} as Parameters<FakeService["spawn"]>[0]);
const info = spawned?.info ?? assert.fail();
const children =
  (count = 1) =>
  () =>
    json(
      201,
      Array.from({ length: count }, (_, index) => ({ ...info, id: `sb-${index}` })),
    );
const base = service.snapshots.get("base") ?? assert.fail();
const evaluated = (fields: object) => () =>
  json(200, {
    ...{ result: null, result_json: null, stdout: "", stderr: "", error: null, traceback: null },
    ...{ exit_code: 0, timed_out: false, duration_ms: 1, ...fields },
  });

const at = (fake: FakeFetch) => ({ baseUrl: "http://daemon:1", token: "t", fetch: fake.fetch });
const bodies = (fake: FakeFetch): unknown[] => fake.sent.map(({ body }) => body);
const requests = (fake: FakeFetch): string[] =>
  fake.sent.map(({ method, url }) => `${method} ${url.replace("http://daemon:1", "")}`);

test("Sandbox.with kills the child, also when the work fails", async () => {
  const fake = fakeFetch(children(), empty);
  const said = await Sandbox.with({ snapshotTag: "base", ...at(fake) }, (sandbox) => sandbox.id);
  assert.equal(said, "sb-0");
  const failing = fakeFetch(children(), empty);
  const work = Sandbox.with({ snapshotTag: "base", ...at(failing) }, () => {
    throw new Error("work");
  });
  await assert.rejects(work, { message: "work" });
  const expected = ["POST /v1/sandboxes", "DELETE /v1/sandboxes/sb-0"];
  assert.deepEqual([requests(fake), requests(failing)], [expected, expected]);
});

test("what this program made ends with its scope, what it looked up does not", async () => {
  const made = fakeFetch(children(), empty);
  {
    await using sandbox = await Sandbox.create({ snapshotTag: "base", ...at(made) });
    assert.equal(sandbox.id, "sb-0");
  }
  assert.equal(made.sent.length, 2);
  const found = fakeFetch(() => json(200, info));
  {
    await using sandbox = await Sandbox.get(info.id, at(found));
    assert.deepEqual(sandbox.info, info);
  }
  assert.equal(found.sent.length, 1);
  const looked = fakeFetch(() => json(200, [base]));
  {
    await using snapshot = await Snapshot.get("base", at(looked));
    assert.equal(snapshot.status, "ready");
  }
  assert.equal(looked.sent.length, 1);
});

test("kill is done once, and a sandbox that is gone is killed", async () => {
  const fake = fakeFetch(children(), () => notFound("sandbox_not_found"));
  const sandbox = await Sandbox.create({ snapshotTag: "base", ...at(fake) });
  await sandbox.kill();
  await sandbox.kill();
  assert.equal(fake.sent.length, 2);
  const refused = fakeFetch(children(), () => busy(3600));
  const other = await Sandbox.create({ snapshotTag: "base", ...at(refused) });
  await assert.rejects(other.kill(), { code: "busy" });
});

test("the end of many children's scope tries to end each of them", async () => {
  const fake = fakeFetch(
    () => json(200, [base]),
    children(3),
    () => busy(3600),
    empty,
  );
  const snapshot = await Snapshot.get("base", at(fake));
  const brood = await snapshot.fork({ n: 3 });
  assert.equal(brood.length, 3);
  assert.ok(brood.every((child) => child instanceof Sandbox));
  assert.deepEqual(
    brood.map(({ id }) => id),
    ["sb-0", "sb-1", "sb-2"],
  );
  await assert.rejects(brood[Symbol.asyncDispose](), { code: "busy" });
  assert.equal(fake.sent.filter(({ method }) => method === "DELETE").length, 3);
});

test("eval gives the value, or the interpreter's text for it, or throws", async () => {
  const fake = fakeFetch(
    children(),
    evaluated({ result: "4", result_json: "4" }),
    evaluated({ result: "<function f>" }),
    evaluated({ error: "ZeroDivisionError: division by zero", exit_code: 1, traceback: "tb" }),
  );
  const sandbox = await Sandbox.create({ snapshotTag: "base", ...at(fake) });
  assert.equal(await sandbox.eval("2+2"), 4);
  assert.equal(await sandbox.eval("f", { timeoutSecs: 5 }), "<function f>");
  await assert.rejects(sandbox.eval("1/0"), (error: unknown) => {
    assert.ok(error instanceof GuestEvalError);
    assert.equal(error.message, "eval error: ZeroDivisionError: division by zero");
    assert.equal(error.result.traceback, "tb");
    return true;
  });
  assert.deepEqual(bodies(fake).slice(1, 3), [{ code: "2+2" }, { code: "f", timeout_secs: 5 }]);
});

test("exec takes words, or one text for a shell", async () => {
  const ran = { stdout: "", stderr: "", exit_code: 0, signal: null, timed_out: false };
  const full = { ...ran, truncated: false, error: null, duration_ms: 1 };
  const fake = fakeFetch(children(), () => json(200, full));
  const sandbox = await Sandbox.create({ snapshotTag: "base", ...at(fake) });
  await sandbox.exec(["echo", "hi"]);
  await sandbox.exec("echo $X", {
    env: { X: "1" },
    cwd: "/",
    user: "u",
    stdin: "s",
    timeoutSecs: 1,
  });
  assert.deepEqual(bodies(fake).slice(1), [
    { args: ["echo", "hi"], timeout_secs: 30 },
    {
      args: ["/bin/sh", "-c", "echo $X"],
      ...{ env: { X: "1" }, cwd: "/", user: "u", stdin: "s", timeout_secs: 1 },
    },
  ]);
});

test("a branch is a snapshot's fields and what can be done with it", async () => {
  const writing = { ...base, tag: "b", status: "writing", bootable: false, pause_ms: 7 };
  const ready = { ...writing, status: "ready", bootable: true };
  const fake = fakeFetch(
    children(),
    () => json(202, writing),
    () => json(200, [base, writing]),
    () => json(404, { detail: "Not Found" }),
    () => json(200, [base, ready]),
    empty,
  );
  const sandbox = await Sandbox.create({ snapshotTag: "base", ...at(fake) });
  {
    await using branch = await sandbox.branch({ tag: "b", mode: "live", wait: false });
    assert.deepEqual([branch.tag, branch.status, branch.pause_ms], ["b", "writing", 7]);
    assert.deepEqual(JSON.parse(JSON.stringify(branch)), writing);
    const done = await branch.ready();
    assert.equal(done.status, "ready");
  }
  assert.deepEqual(requests(fake).slice(1), [
    "POST /v1/sandboxes/sb-0/branch",
    // A daemon of before events is asked again and again.
    ...["GET /v1/snapshots", `GET /v1/events?${eventQuery("b")}`, "GET /v1/snapshots"],
    "DELETE /v1/snapshots/b",
  ]);
  assert.deepEqual(bodies(fake)[1], { tag: "b", mode: "live", wait: false });
});

const eventQuery = (tag: string): string =>
  `types=snapshot.ready%2Csnapshot.failed%2Csnapshot.removed%2Cevents.missed&snapshot_tag=${tag}`;

/** Server-sent events, each when it is given. */
function stream() {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  const send = (text: string): Promise<void> => writer.write(Buffer.from(`${text}\n\n`));
  const answer = () => new Response(readable, { headers: { "content-type": "text/event-stream" } });
  return { answer, send, close: () => writer.close() };
}

test("a snapshot is waited for by events, and looked at when something is said", async () => {
  const state = (status: string) => () => json(200, [{ ...base, status }]);
  const events = stream();
  const beat = (text: string, status: string) => async () => {
    if (text !== "") void events.send(text);
    return state(status)();
  };
  const ready = JSON.stringify({ id: "1", type: "snapshot.ready", at_unix_ms: 1 });
  const fake = fakeFetch(
    state("writing"),
    state("writing"),
    () => {
      void events.send("retry: 1000");
      return events.answer();
    },
    beat(": alive", "writing"),
    beat(`id: 1\nevent: snapshot.ready\ndata: ${ready}`, "writing"),
    state("ready"),
  );
  const done = await (await Snapshot.get("base", at(fake))).ready();
  assert.equal(done.status, "ready");
  const look = "GET /v1/snapshots";
  assert.deepEqual(requests(fake), [
    look,
    look,
    `GET /v1/events?${eventQuery("base")}`,
    ...[look, look, look],
  ]);
  // The place among the daemon's clients is given back.
  assert.equal(fake.sent[2]?.init.signal?.aborted, true);
});

test("where the events end, a snapshot is looked at again and again", async () => {
  const state = (status: string) => () => json(200, [{ ...base, status }]);
  const events = stream();
  const fake = fakeFetch(
    state("writing"),
    state("writing"),
    () => {
      void events.send("retry: 1000").then(events.close);
      return events.answer();
    },
    state("writing"),
    state("writing"),
    state("ready"),
  );
  assert.equal((await (await Snapshot.get("base", at(fake))).ready()).status, "ready");
  assert.equal(fake.sent.length, 6);
});

test("waiting for a snapshot ends: written, failed, gone, late, aborted", async () => {
  const state = (fields: object) => () => json(200, [{ ...base, ...fields }]);
  const wait = async (answer: () => Response, control: object = {}) => {
    const fake = fakeFetch(state({ status: "writing" }), answer);
    return (await Snapshot.get("base", at(fake))).ready(control);
  };
  assert.equal((await wait(state({ status: "ready" }))).status, "ready");
  await assert.rejects(wait(state({ status: "failed", warning: "no space" })), {
    code: "snapshot_incomplete",
    message: /no space/,
  });
  await assert.rejects(
    wait(() => json(200, [])),
    { code: "snapshot_not_found" },
  );
  const writing = state({ status: "writing" });
  await assert.rejects(wait(writing, { timeoutMs: 60 }), {
    code: "deadline_exceeded",
    message: "waiting for snapshot 'base' took longer than 60 ms",
  });
  const stop = new AbortController();
  const waiting = wait(writing, { signal: stop.signal });
  setTimeout(() => stop.abort(new Error("enough")), 10);
  await assert.rejects(waiting, { message: "enough" });
});

test("upstream's Controller sends what upstream's sends", async () => {
  const fake = fakeFetch(
    children(),
    children(),
    () => json(201, base),
    () => json(201, base),
  );
  const controller = new Controller(at(fake));
  await controller.spawnSandboxes({ snapshotTag: "base" });
  await controller.spawnSandboxes({
    ...{ snapshotTag: "base", n: 2, perChildNetns: true, memoryLimitMib: 64 },
    ...{ prewarm: false, liveFork: true, hugepages: true, scratchMib: 128 },
  });
  await controller.branchSandbox("a/b", { diff: true, measure_diff: false, wait: true });
  await controller.branchSandbox("x", { tag: "t", mode: "diff", diff: true, wait: false });
  assert.deepEqual(bodies(fake), [
    { snapshot_tag: "base", n: 1, per_child_netns: false },
    {
      ...{ snapshot_tag: "base", n: 2, per_child_netns: true, memory_limit_mib: 64 },
      ...{ prewarm: false, live_fork: true, hugepages: true, scratch_mib: 128 },
    },
    { diff: true },
    { tag: "t", mode: "diff", wait: false },
  ]);
  assert.equal(requests(fake)[2], "POST /v1/sandboxes/a%2Fb/branch");
});

test("upstream's ControllerError: status, body, url; an own error besides", async () => {
  const page = fakeFetch(() => new Response("<html>", { status: 502 }));
  await assert.rejects(new Controller(at(page)).getSandbox("x"), (error: unknown) => {
    assert.ok(error instanceof ControllerError);
    const { status, body, url, code } = error;
    assert.deepEqual(
      { status, body, url, code },
      { status: 502, body: "<html>", url: "http://daemon:1/v1/sandboxes/x", code: "internal" },
    );
    return true;
  });
});

test("limits, ended sandboxes and dependents are asked for by name", async () => {
  const fake = fakeFetch(
    () => json(200, [base]),
    children(),
    empty,
    empty,
    () => json(200, []),
  );
  const snapshot = await Snapshot.get("base", at(fake));
  await snapshot.fork({
    ...{ cpuLimit: 0.5, pidsLimit: 100, ioReadBps: 1e6, ioWriteBps: 2e6, requireLimits: true },
  });
  assert.deepEqual(bodies(fake)[1], {
    ...{ snapshot_tag: "base", n: 1, per_child_netns: false, cpu_limit: 0.5, pids_limit: 100 },
    ...{ io_read_bps: 1e6, io_write_bps: 2e6, require_limits: true },
  });
  await snapshot.delete();
  await snapshot.delete({ cascade: true, force: false });
  await Sandbox.list({ ...at(fake), ended: true });
  assert.deepEqual(requests(fake).slice(2), [
    ...["DELETE /v1/snapshots/base", "DELETE /v1/snapshots/base?cascade=true"],
    "GET /v1/sandboxes?ended=true",
  ]);
});
