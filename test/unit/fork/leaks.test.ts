import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, rmdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type DataPaths, resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { acquireDaemonLock } from "@forkd/host/fork/daemon-lock.ts";
import { fixLeaks, listLeaks } from "@forkd/host/fork/leaks/leaks.ts";
import { renderRecord, type SandboxRecord } from "@forkd/host/fork/record.ts";
import { createWorkDir } from "@forkd/host/fork/work-dir.ts";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import { sampleRecord } from "../../helpers/sample-record.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const self = identifyProcess(process.pid) ?? assert.fail();
const gone = { ...self, startTicks: self.startTicks + 1 };
/** No kernel gives a pid above 2^22 (proc(5), pid_max). */
const noPid = 4_194_305;

function record(id: string, change: Partial<SandboxRecord>): Record<string, string> {
  return { "sandbox.json": renderRecord(sampleRecord(id, { process: gone, ...change })) };
}

/** What is found, with the directory left out; images in memory may be other tests'. */
async function found(paths: DataPaths): Promise<string[]> {
  const reports = (await listLeaks(paths)).filter(({ kind }) => kind !== "memory_image");
  return reports.map(({ kind, what }) => `${kind} ${what.replace(`${paths.dataDir}/`, "")}`).sort();
}

test("a directory that is not there has no leaks, and is not made", async () => {
  await using dir = await makeTmpDir("leaks");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: join(dir.path, "none") }, 0);
  assert.deepEqual(await found(paths), []);
  assert.deepEqual(await readdir(dir.path), []);
});

test("what has an owner that lives, or waits for the next daemon, is no leak", async () => {
  await using dir = await makeTmpDir("leaks");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dir.path }, 0);
  await createWorkDir(paths, { name: "mine", owner: self });
  const files = record("sb-1-1", { process: self });
  await createWorkDir(paths, { name: "sb-1-1", owner: gone, files });
  assert.deepEqual(await found(paths), []);
});

test("each kind is found, and removed or moved aside", async () => {
  await using dir = await makeTmpDir("leaks");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dir.path }, 0);
  const add = (name: string, files: Record<string, string>) =>
    createWorkDir(paths, { name, owner: gone, files });
  await add("sb-1-1", record("sb-1-1", {}));
  await add("sb-1-2", record("sb-1-2", { outlives: false }));
  await add("parent-1", {});
  await add("sb-1-3", { "sandbox.json": "torn" });
  await mkdir(join(paths.workDir, "strange"));
  await mkdir(join(paths.workDir, `.old-${noPid}.1-sb-1-4`));
  await mkdir(join(paths.snapshotsDir, `.staging-${noPid}.1-x-abcdef`), { recursive: true });
  await writeFile(join(paths.dataDir, `.staging-state.json-${noPid}-0123456789ab`), "half");
  await mkdir(join(paths.dataDir, "ended"));
  const ended = join(paths.dataDir, "ended", "1700000000000-sb-1-5.json");
  await writeFile(ended, "torn");
  const vmm = await lostProcess(paths);
  assert.deepEqual(await found(paths), [
    `process pid ${vmm.pid}`,
    "record ended/1700000000000-sb-1-5.json",
    "record work/sb-1-3",
    `staging .staging-state.json-${noPid}-0123456789ab`,
    `staging snapshots/.staging-${noPid}.1-x-abcdef`,
    `work_dir work/.old-${noPid}.1-sb-1-4`,
    "work_dir work/parent-1",
    "work_dir work/sb-1-1",
    "work_dir work/sb-1-2",
    "work_dir work/strange",
  ]);
  const reports = await fixLeaks(paths);
  assert.deepEqual(
    reports.filter(({ problem }) => problem !== null),
    [],
  );
  assert.deepEqual(await found(paths), []);
  assert.deepEqual(await vmm.exited, [null, "SIGKILL"]);
  assert.deepEqual(await readdir(paths.workDir), []);
  const kept = (await readdir(join(paths.dataDir, "quarantine"))).map((name) => name.slice(14));
  assert.deepEqual(kept.sort(), ["1700000000000-sb-1-5.json", "sb-1-3", "strange"]);
  // The end of the sandbox that was a daemon's is told by the next daemon.
  const [remembered = "", ...others] = await readdir(join(paths.dataDir, "ended"));
  assert.match(remembered, /^\d{13}-sb-1-1\.json$/);
  assert.deepEqual(others, []);
});

/** A process whose current directory below `work/` is not there any more. */
async function lostProcess({ workDir }: DataPaths) {
  const cwd = join(workDir, "lost");
  await mkdir(cwd);
  const child = spawn("sleep", ["60"], { cwd, stdio: "ignore" });
  await once(child, "spawn");
  await rmdir(cwd);
  return { pid: child.pid, exited: once(child, "exit") };
}

test("next to a daemon, what the daemon is taking over is left to it", async () => {
  await using dir = await makeTmpDir("leaks");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dir.path }, 0);
  const lock = await acquireDaemonLock(paths, self);
  await createWorkDir(paths, { name: "sb-1-1", owner: gone, files: record("sb-1-1", {}) });
  await createWorkDir(paths, { name: "parent-1", owner: gone });
  assert.deepEqual(await found(paths), ["work_dir work/parent-1"]);
  await fixLeaks(paths);
  assert.deepEqual(await readdir(paths.workDir), ["sb-1-1"]);
  // The lock is still the daemon's.
  assert.ok((await stat(join(paths.dataDir, "daemon.lock"))).isFile());
  await lock.release();
  assert.deepEqual(await found(paths), ["work_dir work/sb-1-1"]);
});
