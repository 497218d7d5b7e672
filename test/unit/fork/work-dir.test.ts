import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { createWorkDir, orphanedWorkDirs, reapWorkDir } from "@forkd/host/fork/work-dir.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { findProcess, identifyProcess } from "@forkd/host/linux/proc.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const self = identifyProcess(process.pid) ?? assert.fail();
const gone = { ...self, startTicks: self.startTicks + 1 };

test("only what a process that is gone made, or was making, is an orphan", async () => {
  await using dir = await makeTmpDir("work");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dir.path }, 0);
  assert.deepEqual(await orphanedWorkDirs(paths), []);
  await createWorkDir(paths, "ours", self);
  const lost = await createWorkDir(paths, "lost", gone);
  const halfway = join(paths.workDir, `.new-${gone.pid}.${gone.startTicks}-x`);
  await mkdir(halfway);
  const doomed = join(paths.workDir, `.old-${gone.pid}.${gone.startTicks}-z`);
  await mkdir(doomed);
  await mkdir(join(paths.workDir, `.new-${self.pid}.${self.startTicks}-y`));
  await mkdir(join(paths.workDir, "somebody-elses"));
  assert.deepEqual((await orphanedWorkDirs(paths)).sort(), [halfway, doomed, lost].sort());
});

test("reaping ends what runs in the directory, known by nothing else", async () => {
  await using dir = await makeTmpDir("work");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dir.path }, 0);
  const workDir = await createWorkDir(paths, "vm", gone);
  const child = spawn("sleep", ["60"], { cwd: workDir, detached: true, stdio: "ignore" });
  await once(child, "spawn");
  const exited = once(child, "exit");
  await reapWorkDir(workDir, { owner: self, log: silentLogger });
  assert.deepEqual(await exited, [null, "SIGKILL"]);
  assert.equal(findProcess(child.pid ?? 0), undefined);
  assert.deepEqual(await readdir(paths.workDir), []);
});

test("a path that is too long for a socket is refused before anything is made", async () => {
  await using dir = await makeTmpDir("work");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: join(dir.path, "x".repeat(100)) }, 0);
  await assert.rejects(createWorkDir(paths, "vm", self), { code: "bad_request" });
  assert.deepEqual(await readdir(dir.path), []);
});
