import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { parseSandboxId } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { noLimits } from "@forkd/host/fork/asked-limits.ts";
import { LimitKeeper, releaseCgroup } from "@forkd/host/fork/limits.ts";
import { nativeTool } from "@forkd/host/lib/native.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const id = parseSandboxId("sb-6a000000-0123456789abcdef");

/** A data directory with the groups of one sandbox. */
async function withGroups() {
  const tmp = await makeTmpDir("groups");
  const keeper = new LimitKeeper(resolveDataPaths({ FORKD_DATA_DIR: tmp.path }, 0));
  const { procsFiles } = await keeper.make(id, noLimits);
  const dirs = procsFiles.map((path) => dirname(path));
  return { tmp, dirs, trees: dirs.map((dir) => dirname(dir)) };
}

/** As the next daemon does, of whatever data directory. */
async function sweep(): Promise<void> {
  await using tmp = await makeTmpDir("groups-sweep");
  await new LimitKeeper(resolveDataPaths({ FORKD_DATA_DIR: tmp.path }, 0)).sweep();
}

const there = (dirs: readonly string[]): string[] => dirs.filter((dir) => existsSync(dir));

describe("control groups of a data directory", { skip: skipWithout("root", "guest-agent") }, () => {
  test("go with the next daemon when the directory is gone", async (t) => {
    const { tmp, dirs, trees } = await withGroups();
    await using _tmp = tmp;
    if (dirs.length === 0) return t.skip("no control groups on this host");
    await rm(tmp.path, { recursive: true });
    await sweep();
    assert.deepEqual(there(trees), []);
  });

  test("stay while it is there, and while something runs in them", async (t) => {
    const { tmp, dirs, trees } = await withGroups();
    await using _tmp = tmp;
    if (dirs.length === 0) return t.skip("no control groups on this host");
    await sweep();
    assert.deepEqual(there(dirs), dirs);
    const joins = dirs.flatMap((dir) => ["--cgroup", join(dir, "cgroup.procs")]);
    const argv = [...joins, "--", "sh", "-c", "echo in; exec sleep 60"];
    const child = spawn(nativeTool("forkd-launch"), argv, { stdio: ["ignore", "pipe", "inherit"] });
    await once(child.stdout, "data");
    await rm(tmp.path, { recursive: true });
    await sweep();
    assert.deepEqual(there(dirs), dirs);
    for (const dir of dirs) await releaseCgroup(dir);
    await sweep();
    assert.deepEqual(there(trees), []);
  });
});
