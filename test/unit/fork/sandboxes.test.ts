import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { ForkdError } from "@forkd/api";
import { StartFailure } from "@forkd/host/fork/child.ts";
import { History } from "@forkd/host/fork/history.ts";
import { stateBoundsMs } from "@forkd/host/fork/lifecycle.ts";
import fc from "fast-check";
import { eventually } from "../../helpers/eventually.ts";
import { type BenchSandbox, type ForkBench, openBench } from "../../helpers/fork-bench.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const killed = { reason: "killed", detail: "a test" } as const;
const guestOff = { guestOff: "guest-shutdown" };

/** Until everything that can go on without the outside world has gone on. */
async function settle(): Promise<void> {
  for (let turns = 0; turns < 10; turns += 1) await turn();
}

async function running(bench: ForkBench): Promise<BenchSandbox> {
  const made = await bench.begin();
  made.open();
  await made.sandbox.opened;
  return made;
}

test("deletes join, and go on to say that it is done", async () => {
  await using dir = await makeTmpDir("fork");
  const bench = await openBench(dir.path);
  const { id, vm } = await running(bench);
  await Promise.all([1, 2, 3].map(() => bench.sandboxes.kill(id)));
  assert.equal(bench.sandboxes.list().length, 0);
  await bench.sandboxes.kill(id);
  assert.ok(vm.stops >= 1);
  const { state, end } = await bench.sandboxes.get(id);
  assert.deepEqual([state, end?.reason], ["ended", "killed"]);
  await assert.rejects(bench.sandboxes.kill("sb-0-0" as typeof id), { code: "sandbox_not_found" });
  const exec = { args: ["true"], timeout_secs: 1, env: {} };
  await assert.rejects(bench.sandboxes.exec(id, exec), { code: "sandbox_ended" });
});

test("the journal is ahead of what it describes, step by step", async () => {
  await using dir = await makeTmpDir("fork");
  const bench = await openBench(dir.path);
  const { id } = await running(bench);
  await bench.sandboxes.kill(id);
  assert.deepEqual(bench.steps, [
    "end_intended",
    "vmm_stopped",
    "resources_released",
    "end_recorded",
    "work_dir_doomed",
    "work_dir_removed",
  ]);
});

test("a sandbox that starts is deleted at once, and its start told to stop", async () => {
  await using dir = await makeTmpDir("fork");
  const bench = await openBench(dir.path);
  const { id, sandbox, vm } = await bench.begin();
  assert.equal(bench.sandboxes.list()[0]?.state, "starting");
  await bench.sandboxes.kill(id);
  assert.ok(vm.stops >= 1);
  await assert.rejects(sandbox.opened, { code: "sandbox_ended" });
});

test("one branch at a time; a delete ends it, a failure resumes the VM", async () => {
  await using dir = await makeTmpDir("fork");
  const bench = await openBench(dir.path);
  const { id, vm } = await running(bench);
  const failing = bench.sandboxes.whileBranching(id, async () => {
    throw new ForkdError("disk_full", "no room");
  });
  await assert.rejects(failing, { code: "disk_full" });
  assert.equal(vm.resumes, 1);
  const forever = Promise.withResolvers<void>();
  const branching = bench.sandboxes.whileBranching(id, () => forever.promise);
  await settle();
  assert.equal(bench.sandboxes.list()[0]?.state, "branching");
  const second = bench.sandboxes.whileBranching(id, async () => undefined);
  await assert.rejects(second, { code: "sandbox_busy" });
  const failed = assert.rejects(branching, { code: "sandbox_ended" });
  await bench.sandboxes.kill(id);
  await failed;
  assert.equal(vm.resumes, 1);
});

test("a start that hangs is ended", async () => {
  await using dir = await makeTmpDir("fork");
  const bench = await openBench(dir.path, { ...stateBoundsMs, starting: 20 });
  const hung = await bench.begin({ obeys: false });
  await assert.rejects(hung.sandbox.opened, { code: "sandbox_ended" });
  assert.equal(await hung.sandbox.ended, undefined);
  assert.equal((await bench.sandboxes.get(hung.id)).end?.reason, "identity_timeout");
});

test("a branch that hangs is given up, and the sandbox runs on", async () => {
  await using dir = await makeTmpDir("fork");
  const bench = await openBench(dir.path, { ...stateBoundsMs, branching: 20 });
  const { id, sandbox, vm } = await running(bench);
  const never = Promise.withResolvers<void>();
  const branch = bench.sandboxes.whileBranching(id, () => never.promise);
  await assert.rejects(branch, { code: "deadline_exceeded" });
  assert.deepEqual([sandbox.info.state, vm.resumes], ["running", 1]);
  await sandbox.kill(killed);
});

test("a VMM that does not end is said to be there still, and is no sandbox any more", async () => {
  await using dir = await makeTmpDir("fork");
  const bench = await openBench(dir.path, { ...stateBoundsMs, ending: 20 });
  const { id, sandbox, vm } = await running(bench);
  vm.immortal = true;
  await assert.rejects(sandbox.kill(killed), { code: "deadline_exceeded" });
  assert.equal(sandbox.info.state, "ended");
  assert.deepEqual(await readdir(bench.deps.paths.workDir), [id]);
  vm.die();
  await eventually(async () => assert.deepEqual(await readdir(bench.deps.paths.workDir), []));
});

test("the history keeps the newest, each once, over restarts", async () => {
  await using dir = await makeTmpDir("history");
  const bench = await openBench(dir.path);
  const history = await History.open(join(dir.path, "some"), 3);
  const infos = await Promise.all(
    [1, 2, 3, 4].map(async (at_unix_ms) => {
      const { sandbox } = await running(bench);
      await sandbox.kill(killed);
      return { ...sandbox.info, end: { ...killed, at_unix_ms } };
    }),
  );
  for (const info of [...infos, ...infos]) await history.add(info);
  const ids = infos.map(({ id }) => id);
  const listed = (await History.open(join(dir.path, "some"), 3)).list();
  // The fourth pushed the first out; it came again, and pushed out the second, and so on.
  assert.equal((await listed).length, 3);
  assert.equal((await readdir(join(dir.path, "some"))).length, 3);
  assert.equal(new Set((await listed).map(({ id }) => id)).size, 3);
  assert.ok(ids.includes((await listed)[0]?.id ?? ""));
});

type Op = "open" | "fail" | "die" | "off" | "kill" | "branch" | "branched" | "branch_fails";
const ops: readonly Op[] = [
  ...(["open", "open", "fail", "die", "off", "kill"] as const),
  ...(["branch", "branch", "branched", "branch_fails"] as const),
];

/** What a sandbox must be like, said without the table. */
interface Expected {
  state: "starting" | "running" | "branching" | "over";
  reason: string | null;
}

/** One sandbox of a run, and what is awaited of it. */
class Subject {
  readonly made: BenchSandbox;
  readonly expected: Expected = { state: "starting", reason: null };
  readonly #bench: ForkBench;
  readonly #pending: Promise<unknown>[] = [];
  #branch: PromiseWithResolvers<void> | undefined;

  constructor(bench: ForkBench, made: BenchSandbox) {
    this.#bench = bench;
    this.made = made;
  }

  async apply(op: Op): Promise<void> {
    const { vm, open, fail } = this.made;
    const { state } = this.expected;
    if (op === "open") open();
    if (op === "open" && state === "starting") this.expected.state = "running";
    if (op === "fail") fail(new StartFailure("identity_timeout", "it was silent"));
    if (op === "fail" && state === "starting") this.#over("identity_timeout");
    if (op === "die") vm.die({ exitCode: 1 });
    if (op === "die") this.#over("engine_crash");
    if (op === "off") vm.die(guestOff);
    if (op === "off") this.#over("exited");
    if (op === "kill") this.#await(this.made.sandbox.kill(killed));
    if (op === "kill") this.#over("killed");
    if (op === "branch") this.#begin();
    if (op === "branched") this.#branch?.resolve();
    if (op === "branch_fails") this.#branch?.reject(new ForkdError("disk_full", "no room"));
    if (op.startsWith("branch") && op !== "branch" && state === "branching") {
      this.expected.state = "running";
    }
    if (this.expected.state === "over") await this.made.sandbox.ended;
    await settle();
  }

  /** Everything that was asked of it has an answer. */
  async finish(): Promise<void> {
    await this.apply("kill");
    this.#branch?.resolve();
    const answers = await Promise.allSettled(this.#pending);
    for (const answer of answers) {
      if (answer.status === "fulfilled") continue;
      const codes = ["sandbox_busy", "sandbox_ended", "disk_full"];
      assert.ok(codes.includes(answer.reason.code), String(answer.reason));
    }
  }

  #await(asked: Promise<unknown>): void {
    asked.catch(() => undefined);
    this.#pending.push(asked);
  }

  #over(reason: string): void {
    if (this.expected.state === "over") return;
    this.expected.state = "over";
    this.expected.reason = reason;
  }

  #begin(): void {
    const { state } = this.expected;
    const work = Promise.withResolvers<void>();
    work.promise.catch(() => undefined);
    const { id } = this.made;
    this.#await(this.#bench.sandboxes.whileBranching(id, () => work.promise));
    if (state !== "running") return;
    this.#branch = work;
    this.expected.state = "branching";
  }
}

async function check(bench: ForkBench, subjects: readonly Subject[]): Promise<void> {
  const listed = new Map(bench.sandboxes.list().map((info) => [info.id, info]));
  for (const { made, expected } of subjects) {
    const { id } = made;
    const isOver = expected.state === "over";
    assert.equal(listed.get(id)?.state, isOver ? undefined : expected.state);
    assert.equal(existsSync(join(bench.deps.paths.workDir, id)), !isOver);
    const info = await bench.sandboxes.get(id);
    assert.equal(info.end?.reason ?? null, expected.reason);
    if (isOver) assert.ok(made.vm.stops > 0 || expected.reason !== "killed");
  }
  const ended = await bench.sandboxes.listEnded();
  const over = subjects.filter(({ expected }) => expected.state === "over");
  assert.deepEqual(ended.map(({ id }) => id).sort(), over.map(({ made }) => made.id).sort());
}

test("any order of events, on several sandboxes at one time, does what the rules say", async () => {
  const step = fc.record({ target: fc.nat(2), op: fc.constantFrom(...ops) });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 14 }), async (sequence) => {
      await using dir = await makeTmpDir("model");
      const bench = await openBench(dir.path);
      const subjects = await Promise.all(
        [0, 1, 2].map(async () => new Subject(bench, await bench.begin())),
      );
      for (const { target, op } of sequence) {
        await subjects[target]?.apply(op);
        await check(bench, subjects);
      }
      await Promise.all(subjects.map((subject) => subject.finish()));
      await check(bench, subjects);
      assert.deepEqual(await readdir(bench.deps.paths.workDir), []);
    }),
    { numRuns: 120 },
  );
});
