import assert from "node:assert/strict";
import { test } from "node:test";
import { limits, type SandboxInfo, type SnapshotInfo } from "@forkd/api";
import { EventLog, EventSource } from "@forkd/host/fork/events.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { eventually } from "../../helpers/eventually.ts";
import { sampleSandbox } from "../../helpers/fake-service.ts";

const typesOf = (log: EventLog, position = 0): string[] =>
  log.since(position).events.map(({ type }) => type);

test("a reader goes on after the last event that it has", () => {
  const log = new EventLog();
  const start = log.positionAfter(undefined);
  assert.equal(start, 1);
  log.append("sandbox.created", { sandbox_id: "a" });
  log.append("sandbox.ended", { sandbox_id: "a", reason: "killed" });
  const { events } = log.since(1);
  assert.deepEqual(typesOf(log), ["sandbox.created", "sandbox.ended"]);
  const after = log.positionAfter(events[0]?.id);
  assert.deepEqual(typesOf(log, after), ["sandbox.ended"]);
  assert.equal(log.positionAfter("00000000-1"), undefined, "of another run");
  assert.equal(log.positionAfter(events[0]?.id.replace(/1$/, "99")), undefined, "of the future");
  assert.equal(log.positionAfter("what"), undefined);
});

test("what is too old is missed, and said to be", () => {
  const log = new EventLog();
  for (let n = 0; n < limits.eventsKeptMax + 10; n += 1) log.append("snapshot.ready", {});
  const page = log.since(1);
  assert.equal(page.missed, true);
  assert.equal(page.events.length, limits.eventsKeptMax);
  assert.equal(log.since(page.next).missed, false);
  assert.equal(log.since(11).missed, false);
});

test("a wait ends with the next event, or with its signal", async () => {
  const log = new EventLog();
  const woken = log.wait(60_000, new AbortController().signal);
  log.append("snapshot.ready", {});
  await woken;
  const gone = new AbortController();
  const given = log.wait(60_000, gone.signal);
  gone.abort();
  await given;
});

test("a sandbox is told of from its opening to its end", () => {
  const source = new EventSource(async () => [], silentLogger);
  const tell = (change: Partial<SandboxInfo>): void =>
    source.onSandbox({ ...sampleSandbox("sb-1", "base"), ...change });
  const end = { reason: "killed", at_unix_ms: 1, detail: "" } as const;
  tell({ state: "starting" });
  tell({ state: "running" });
  tell({ state: "branching" });
  tell({ state: "running", branch_count: 1 });
  tell({ state: "ending", end });
  tell({ state: "ended", end });
  assert.deepEqual(typesOf(source.log), ["sandbox.created", "sandbox.branched", "sandbox.ended"]);
  assert.equal(source.log.since(0).events[2]?.reason, "killed");
  source.onSandbox({ ...sampleSandbox("sb-2", "base"), state: "ending", end });
  assert.equal(source.log.since(0).events.length, 3, "one that never opened is not told of");
});

test("a snapshot is told of as its status changes", async () => {
  let list: SnapshotInfo[] = [];
  const snapshot = (status: SnapshotInfo["status"]): SnapshotInfo => ({
    ...{ tag: "t", dir: "/d", created_at_unix: 1, bootable: true },
    status,
  });
  const source = new EventSource(async () => list, silentLogger);
  await source.start([]);
  const steps = [[snapshot("writing")], [snapshot("ready")], [snapshot("ready")], []];
  for (const [at, step] of steps.entries()) {
    list = step;
    source.snapshotsChanged();
    await eventually(async () => {
      assert.equal(source.log.since(0).events.length, [1, 2, 2, 3][at]);
    });
  }
  assert.deepEqual(typesOf(source.log), ["snapshot.writing", "snapshot.ready", "snapshot.removed"]);
});

test("a bake is told of from its begin, whatever is listed under its tag meanwhile", async () => {
  const old: SnapshotInfo = {
    tag: "t",
    dir: "/d",
    created_at_unix: 1,
    bootable: true,
    status: "ready",
  };
  let list: SnapshotInfo[] = [old];
  let looks = 0;
  const source = new EventSource(async () => {
    looks += 1;
    return list;
  }, silentLogger);
  await source.start([]);
  const look = async (): Promise<void> => {
    const before = looks;
    source.snapshotsChanged();
    await eventually(() => assert.ok(looks > before));
  };
  const taken = new Error("the tag is taken");
  await assert.rejects(
    source.whileBaking("t", async () => {
      throw taken;
    }),
    taken,
  );
  await look();
  assert.deepEqual(typesOf(source.log), [], "what never began is not told of");
  await source.whileBaking("t", async (onBegin) => {
    onBegin();
    list = [];
    await look();
    list = [{ ...old, created_at_unix: 2 }];
    await look();
  });
  await eventually(() => assert.equal(source.log.since(0).events.length, 2));
  const failure = source.whileBaking("t", async (onBegin) => {
    onBegin();
    throw new Error("no kernel");
  });
  await assert.rejects(failure, /no kernel/);
  await look();
  const told = ["snapshot.writing", "snapshot.ready", "snapshot.writing", "snapshot.failed"];
  assert.deepEqual(typesOf(source.log), told);
  assert.match(source.log.since(0).events.at(-1)?.reason ?? "", /no kernel/);
});
