/** How sandboxes end, what is kept of it, and what is left behind: nothing. */
import assert from "node:assert/strict";
import { appendFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { EndReason, SandboxInfo } from "@forkd/api";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { type CliEnd, forkd, startForkd } from "../helpers/cli.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";
import { vmmProcesses } from "../helpers/vmm-processes.ts";

const children = 10;

function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, rank: Math.random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item);
}

describe("the end of a sandbox", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;
  let living: SandboxInfo[];

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("ends", baked);
    daemon = await startDaemon(data.path);
    const body = { snapshot_tag: baked.tag, n: children };
    living = await daemon.client.createSandboxes({ body });
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const take = (): SandboxInfo => living.pop() ?? assert.fail("no sandbox is left");
  const pidOf = ({ pid }: SandboxInfo): number => pid ?? assert.fail();
  const cli = (...args: readonly string[]): Promise<CliEnd> =>
    forkd(args, { dataDir: data.path, daemon });
  const exec = (id: string, script: string) =>
    daemon.client.execSandbox({
      params: { id },
      body: { args: ["/bin/sh", "-c", script], timeout_secs: 30 },
    });

  /** Waits for the end and gives it; nothing of the sandbox may be left then. */
  async function endOf(id: string): Promise<NonNullable<SandboxInfo["end"]>> {
    return eventually(async () => {
      const info = await daemon.client.getSandbox({ params: { id }, query: { ended: true } });
      assert.equal(info.state, "ended");
      assert.equal((await readdir(join(data.path, "work"))).includes(id), false);
      return info.end ?? assert.fail("it ended without a reason");
    });
  }

  /** The latest first. */
  async function endedOnes(): Promise<SandboxInfo[]> {
    const all = await daemon.client.listSandboxes({ query: { ended: true } });
    return all.filter(({ state }) => state === "ended");
  }

  async function assertEnded(id: string, reason: EndReason): Promise<void> {
    assert.equal((await endOf(id)).reason, reason);
    const refused = { code: "sandbox_ended", message: new RegExp(`\\(${reason}: `) };
    await assert.rejects(exec(id, "true"), refused);
    await daemon.client.deleteSandbox({ params: { id } });
    // A delete that comes later does not change why.
    assert.equal((await endOf(id)).reason, reason);
  }

  test("a guest that switches itself off has exited, and its exec is told", async () => {
    const { id } = take();
    await assert.rejects(exec(id, "echo o > /proc/sysrq-trigger; sleep 30"), {
      code: "sandbox_ended",
    });
    await assertEnded(id, "exited");
    assert.match((await endOf(id)).detail, /guest-shutdown/);
  });

  test("a VMM that is killed is an engine crash", async () => {
    const victim = take();
    process.kill(pidOf(victim), "SIGKILL");
    await assertEnded(victim.id, "engine_crash");
    assert.match((await endOf(victim.id)).detail, /SIGKILL/);
  });

  test("what a VMM printed is shown while it runs and kept when it ends", async () => {
    const victim = take();
    const { id } = victim;
    const logs = (...args: readonly string[]) => cli("logs", id, ...args);
    assert.equal((await logs()).code, 0);
    // What a guest can make a VMM print is not for our terminal to obey.
    await appendFile(join(data.path, "work", id, "vmm.log"), "one\ntwo \x1b[31m\n");
    assert.match((await logs()).stdout, /one\ntwo \ufffd\[31m\n$/);
    assert.equal((await logs("--lines", "1")).stdout, "two \ufffd[31m\n");
    process.kill(pidOf(victim), "SIGTERM");
    await endOf(id);
    assert.match((await logs()).stdout, /one\ntwo .*\n.*terminating on signal 15/);
    const last = JSON.parse((await logs("--lines", "1", "--json")).stdout);
    assert.equal(last.id, id);
    assert.match(last.log, /^[^\n]*terminating on signal 15[^\n]*\n$/);
  });

  test("a log is followed to the end of its sandbox, and kept; of none that never was", async () => {
    const { id } = take();
    const log = join(data.path, "work", id, "vmm.log");
    await appendFile(log, "before\n");
    const words = ["logs", "--follow", "--lines", "1", id];
    const run = startForkd(words, { dataDir: data.path, daemon });
    await run.said(/^before$/);
    await appendFile(log, "last words\n");
    await run.said(/^last words$/);
    await daemon.client.deleteSandbox({ params: { id } });
    const { stdout, code } = await run.ended;
    assert.deepEqual([stdout, code], ["before\nlast words\n", 0]);
    const again = await cli("logs", "-f", "-n", "1", id);
    assert.deepEqual([again.stdout, again.code], ["last words\n", 0]);
    const kept = await daemon.client.getSandboxLogs({ params: { id }, query: { lines: 1 } });
    assert.equal(kept, "last words\n");
    const unknown = await cli("logs", "sb-1-00");
    assert.match(unknown.stderr, /sandbox 'sb-1-00' not found/);
    assert.notEqual(unknown.code, 0);
    assert.equal((await cli("logs", id, "--lines", "0")).code, 2);
    assert.equal((await cli("logs", "-f", "--json", id)).code, 2);
  });

  test("a VMM that is killed while its sandbox starts: the spawn fails, nothing is left", async () => {
    const known = new Set(vmmProcesses(data.path));
    const earlier = new Set((await endedOnes()).map(({ id }) => id));
    const body = { snapshot_tag: baked.tag, n: 1 };
    const failed = assert.rejects(daemon.client.createSandboxes({ body }), {
      code: "engine_failed",
    });
    await eventually(
      () => {
        const started = vmmProcesses(data.path).find((pid) => !known.has(pid));
        process.kill(started ?? assert.fail("no VMM yet"), "SIGKILL");
      },
      { everyMs: 2 },
    );
    await failed;
    const [latest] = await endedOnes();
    assert.ok(!earlier.has(latest?.id ?? ""));
    assert.ok(["engine_crash", "spawn_failed"].includes(latest?.end?.reason ?? ""));
    await endOf(latest?.id ?? assert.fail());
  });

  test("a VMM that is killed while its sandbox is branched: the branch fails, nothing is left", async () => {
    const victim = take();
    const body = { tag: "never", mode: "full" as const };
    const branching = daemon.client.branchSandbox({ params: { id: victim.id }, body });
    const failed = assert.rejects(branching);
    await eventually(async () => {
      const { state } = await daemon.client.getSandbox({ params: { id: victim.id } });
      assert.equal(state, "branching");
    });
    process.kill(pidOf(victim), "SIGKILL");
    await failed;
    await assertEnded(victim.id, "engine_crash");
    const tags = (await daemon.client.listSnapshots()).map(({ tag }) => tag);
    assert.deepEqual(tags, [baked.tag]);
  });

  test("a VMM that is killed while its sandbox is deleted: the delete is done", async () => {
    const victim = take();
    const deleting = daemon.client.deleteSandbox({ params: { id: victim.id } });
    process.kill(pidOf(victim), "SIGKILL");
    await deleting;
    assert.ok(["killed", "engine_crash"].includes((await endOf(victim.id)).reason));
  });

  test("any order of calls, deletes and deaths ends in one end each", async () => {
    const body = { snapshot_tag: baked.tag, n: 3 };
    const made = await daemon.client.createSandboxes({ body });
    const acts: ((info: SandboxInfo) => unknown)[] = [
      ({ id }) => daemon.client.deleteSandbox({ params: { id } }),
      (info) => process.kill(pidOf(info), "SIGKILL"),
      ({ id }) => exec(id, "echo o > /proc/sysrq-trigger; sleep 30"),
      ({ id }) => exec(id, "sleep 0.1"),
      ({ id }) => daemon.client.branchSandbox({ params: { id }, body: { mode: "diff" } }),
    ];
    const asked = made.flatMap((info) =>
      shuffled(acts).map(async (act) => {
        await sleep(Math.random() * 200);
        await act(info);
      }),
    );
    await Promise.allSettled(asked);
    for (const { id } of made) {
      await daemon.client.deleteSandbox({ params: { id } });
      const { reason } = await endOf(id);
      assert.ok(["killed", "engine_crash", "exited"].includes(reason), reason);
    }
    const ids = (await endedOnes()).map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length);
    for (const { tag, status } of await daemon.client.listSnapshots()) {
      assert.equal(status, "ready", tag);
      if (tag !== baked.tag) await daemon.client.deleteSnapshot({ params: { tag } });
    }
    const leaks = await cli("leaks", "--json");
    const own = JSON.parse(leaks.stdout).filter(
      ({ kind }: { kind: string }) => kind !== "memory_image",
    );
    assert.deepEqual(own, []);
  });

  test("the death of the warm interpreter ends no sandbox", async () => {
    const { id } = living[0] ?? assert.fail();
    await exec(id, "kill -9 $(cat /proc/[0-9]*/stat | awk '/\\(python3/ {print $1}')");
    assert.equal((await exec(id, "echo on")).stdout, "on\n");
    // It starts again within the time of the code; on a busy host that takes its time.
    const body = { code: "6 * 7", timeout_secs: 300 };
    const { result, error } = await eventually(
      () => daemon.client.evalSandbox({ params: { id }, body }),
      {
        timeoutMs: 60_000,
      },
    );
    assert.deepEqual([result, error], ["42", null]);
  });

  test("what ended is not listed, unless asked for; the command line shows why", async () => {
    const { id } = take();
    await daemon.client.deleteSandbox({ params: { id } });
    await assert.rejects(daemon.client.getSandbox({ params: { id } }), {
      code: "sandbox_not_found",
      message: /it ended at .+ \(killed: /,
    });
    const live = (await daemon.client.listSandboxes()).map(({ state }) => state);
    assert.deepEqual(new Set(live), new Set(["running"]));
    const table = await cli("ls", "--ended");
    assert.match(table.stdout, new RegExp(`^${id} .* ended +killed `, "m"));
    const facts = await cli("inspect", id);
    assert.match(facts.stdout, /^end\.reason +killed$/m);
    assert.match(facts.stdout, /^identity\.crng_reseeded +true$/m);
    assert.equal(JSON.parse((await cli("inspect", id, "--json")).stdout).id, id);
  });

  test("what ended while no daemon ran is told by the next one, with the older ends", async () => {
    const [victim, rebooted, kept] = [take(), take(), living[0] ?? assert.fail()];
    const before = await daemon.client.listSandboxes({ query: { ended: true } });
    await daemon.crash();
    process.kill(pidOf(victim), "SIGKILL");
    process.kill(pidOf(rebooted), "SIGKILL");
    await ofAnotherBoot(rebooted.id);
    daemon = await startDaemon(data.path);
    await assertEnded(victim.id, "lost");
    await assertEnded(rebooted.id, "host_restart");
    const ids = (await daemon.client.listSandboxes({ query: { ended: true } })).map(({ id }) => id);
    assert.deepEqual(ids.sort(), before.map(({ id }) => id).sort());
    assert.equal((await exec(kept.id, "echo on")).stdout, "on\n");
  });

  /** As if the host had been started anew since the record was written. */
  async function ofAnotherBoot(id: string): Promise<void> {
    const path = join(data.path, "work", id, "sandbox.json");
    const record = JSON.parse(await readFile(path, "utf8"));
    await writeFile(path, JSON.stringify({ ...record, boot_id: "another" }));
  }

  test("a damaged record stops the start, and is kept; leaks --fix makes way", async () => {
    await daemon.stop();
    const dir = join(data.path, "work", "sb-0-0");
    await mkdir(dir, { recursive: true });
    const gone = { pid: 1, startTicks: 1, bootId: "another" };
    await writeFile(join(dir, "owner.json"), JSON.stringify(gone));
    await writeFile(join(dir, "sandbox.json"), '{"format": 2, "phase": "run');
    const hint = /sb-0-0\/sandbox\.json is damaged: it is no JSON[\s\S]*forkd leaks --fix/;
    await assert.rejects(startDaemon(data.path), hint);
    const found = await cli("leaks", "--json");
    assert.equal(found.code, 1);
    const leaks: { kind: string; what: string }[] = JSON.parse(found.stdout);
    assert.deepEqual(
      leaks.map(({ kind, what }) => [kind, what]),
      [["record", dir]],
    );
    assert.equal((await cli("leaks", "--fix")).code, 0);
    const clean = await cli("leaks");
    assert.deepEqual([clean.code, clean.stdout], [0, ""]);
    const [kept = ""] = await readdir(join(data.path, "quarantine"));
    const text = await readFile(join(data.path, "quarantine", kept, "sandbox.json"), "utf8");
    assert.match(text, /"phase": "run$/);
    daemon = await startDaemon(data.path);
    const ids = (await daemon.client.listSandboxes()).map(({ id }) => id);
    assert.deepEqual(ids.sort(), living.map(({ id }) => id).sort());
  });
});
