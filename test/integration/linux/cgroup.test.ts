import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { nativeTool } from "@forkd/host/lib/native.ts";
import {
  killCgroup,
  processesOf,
  removeCgroup,
  wasOomKilled,
} from "@forkd/host/linux/cgroup/group.ts";
import type { GroupLimits, LimitName } from "@forkd/host/linux/cgroup/settings.ts";
import { type CgroupTree, openCgroupTree, unlimited } from "@forkd/host/linux/cgroup/tree.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

const mib = 1024 * 1024;

/** The real kernel, with small programs in the place of VMMs. */
describe("control groups", { skip: skipWithout("root", "guest-agent") }, () => {
  let tmp: TmpDir;
  let tree: CgroupTree;
  let refusals: ReadonlyMap<LimitName, string>;
  let names = 0;

  before(async () => {
    tmp = await makeTmpDir("cgroup");
    tree = await openTree();
    refusals = await tree.refusals();
  });
  after(async () => {
    await tree.close();
    await tmp[Symbol.asyncDispose]();
  });

  const openTree = () =>
    openCgroupTree({ path: ["forkd", `test-${process.pid}`], ioPath: tmp.path });
  const made = async (limits: Partial<GroupLimits>) => {
    names += 1;
    const name = `g${names}`;
    return { name, ...(await tree.make(name, { ...unlimited, ...limits })) };
  };
  const start = (dirs: readonly string[], argv: readonly string[]) => {
    const joins = dirs.flatMap((dir) => ["--cgroup", join(dir, "cgroup.procs")]);
    const child = spawn(nativeTool("forkd-launch"), [...joins, "--", ...argv], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(child, "exit").then(() => ({
      code: child.exitCode,
      signal: child.signalCode,
    }));
    return { child, exited };
  };
  const removeAll = async (dirs: readonly string[]): Promise<void> => {
    for (const dir of dirs) await removeCgroup(dir);
  };
  /** Skips with the kernel's own reason where it does not enforce the limit. */
  const enforced = (limit: LimitName, name: string, run: () => Promise<void>) =>
    test(name, async (t) => {
      const reason = refusals.get(limit);
      if (reason !== undefined) t.skip(reason);
      else await run();
    });

  test("the trial leaves nothing, and refuses with words", async () => {
    assert.deepEqual([...(await tree.list())], []);
    for (const reason of refusals.values()) assert.ok(reason.length > 10);
  });

  test("every limit that the trial had is in force in a group, and no other", async () => {
    const limits = { memoryBytes: 64 * mib, cpus: 0.25, pids: 100, readBps: mib, writeBps: mib };
    const { dirs, name, inForce, refused } = await made(limits);
    for (const [limit, value] of Object.entries(limits)) {
      // The keys are those of the object above.
      const key = limit as LimitName;
      assert.equal(inForce[key], refusals.has(key) ? null : value, limit);
    }
    assert.deepEqual(new Set(refused.map(({ limit }) => limit)), new Set(refusals.keys()));
    const again = await openTree();
    assert.deepEqual((await again.check(name, limits)).inForce, inForce);
    const other = await again.check(name, { ...limits, memoryBytes: 65 * mib });
    assert.equal(other.inForce.memoryBytes, null, "what is not there is not reported");
    assert.deepEqual((await again.list()).get(name), dirs);
    await removeAll(dirs);
    await removeAll(dirs);
    assert.deepEqual([...(await tree.list())], []);
  });

  enforced("memoryBytes", "what eats over its memory is killed, and that is known", async () => {
    const { dirs } = await made({ memoryBytes: 32 * mib });
    const hog = start(dirs, ["python3", "-c", "b = bytearray(256 * 1024 * 1024)"]);
    assert.deepEqual(await hog.exited, { code: null, signal: "SIGKILL" });
    assert.equal(await wasOomKilled(dirs), true);
    await removeAll(dirs);
    assert.equal(await wasOomKilled(dirs), false, "a group that is gone says no");
  });

  enforced("memoryBytes", "a kill for another reason is none for want of memory", async () => {
    const { dirs } = await made({ memoryBytes: 32 * mib });
    const sleeper = start(dirs, ["sleep", "60"]);
    sleeper.child.kill("SIGKILL");
    assert.deepEqual(await sleeper.exited, { code: null, signal: "SIGKILL" });
    assert.equal(await wasOomKilled(dirs), false);
    await removeAll(dirs);
  });

  enforced("pids", "a fork bomb stops at its bound", async () => {
    const { dirs } = await made({ pids: 8 });
    const forks =
      "import os, time\nn = 0\ntry:\n  while n < 50:\n    if os.fork() == 0: time.sleep(60)\n    n += 1\nexcept OSError: pass\nprint(n, flush=True)\n";
    const bomb = start(dirs, ["python3", "-c", forks]);
    const [printed] = await once(bomb.child.stdout, "data");
    assert.equal(Number(String(printed)), 7, "and the one that forks");
    for (const dir of dirs) await killCgroup(dir);
    await bomb.exited;
    await removeAll(dirs);
  });

  enforced("cpus", "a group over its time is held back", async () => {
    const { dirs } = await made({ cpus: 0.05 });
    const spin = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass";
    assert.equal((await start(dirs, ["python3", "-c", spin]).exited).code, 0);
    const stat = dirs
      .map((dir) => join(dir, "cpu.stat"))
      .filter((path) => existsSync(path) && /^nr_throttled /m.test(readFileSync(path, "utf8")));
    const throttled = stat.map((path) =>
      Number(/^nr_throttled (\d+)$/m.exec(readFileSync(path, "utf8"))?.[1]),
    );
    assert.ok(Math.max(...throttled) > 0, "the kernel counts how often it did");
    await removeAll(dirs);
  });

  enforced("pids", "a removal waits for the last process to go", async () => {
    const { dirs } = await made({ pids: 100 });
    const sleeper = start(dirs, ["sleep", "60"]);
    const [dir = ""] = dirs;
    while (!(await processesOf(dir)).includes(sleeper.child.pid ?? -1)) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await assert.rejects(removeCgroup(dir, 50), { code: "deadline_exceeded" });
    const removed = removeAll(dirs);
    await killCgroup(dir);
    await removed;
    assert.equal(existsSync(dir), false);
    await sleeper.exited;
  });

  test("a tree that another owner closed while it was empty comes back", async () => {
    const other = await openTree();
    await other.close();
    const { dirs, refused } = await made({ pids: 100 });
    assert.equal(refused.length, refusals.has("pids") ? 1 : 0);
    assert.ok(refusals.has("pids") || dirs.every((dir) => existsSync(dir)));
    await removeAll(dirs);
  });
});
