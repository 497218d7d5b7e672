import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { surveyWorkDirs } from "@forkd/host/fork/survey.ts";
import { createWorkDir, endProcessesIn, removeWorkDir } from "@forkd/host/fork/work-dir.ts";
import { findProcess, identifyProcess } from "@forkd/host/linux/proc.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const self = identifyProcess(process.pid) ?? assert.fail();
const gone = { ...self, startTicks: self.startTicks + 1 };

test("whose a directory is can be told at every instant", async () => {
  await using dir = await makeTmpDir("work");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dir.path }, 0);
  assert.deepEqual(await surveyWorkDirs(paths), []);
  await createWorkDir(paths, { name: "ours", owner: self });
  await createWorkDir(paths, { name: "lost", owner: gone });
  const transient = (verb: string, { pid, startTicks }: typeof self) =>
    mkdir(join(paths.workDir, `.${verb}-${pid}.${startTicks}-x`));
  await transient("new", gone);
  await transient("old", gone);
  await transient("new", self);
  await mkdir(join(paths.workDir, "somebody-elses"));
  const damaged = await createWorkDir(paths, { name: "damaged", owner: gone });
  await writeFile(join(damaged, "sandbox.json"), '{"format": 2}');
  const findings = (await surveyWorkDirs(paths)).map(({ dir: found, kind }) => {
    const name = found.slice(paths.workDir.length + 1).replace(/\d+\.\d+/, "PID");
    return `${name} ${kind}`;
  });
  assert.deepEqual(findings.sort(), [
    ".new-PID-x leftover",
    ".new-PID-x owned",
    ".old-PID-x leftover",
    "damaged damaged",
    "lost orphan",
    "ours owned",
    "somebody-elses foreign",
  ]);
});

test("a damaged record says which file it is and what is wrong with it", async () => {
  await using dir = await makeTmpDir("work");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dir.path }, 0);
  const texts = { a: "", b: "{", c: '{"format": 1}', d: "x".repeat(300_000) };
  for (const [name, text] of Object.entries(texts)) {
    await createWorkDir(paths, { name, owner: gone, files: { "sandbox.json": text } });
  }
  const messages = (await surveyWorkDirs(paths)).map((finding) => {
    if (finding.kind !== "damaged") assert.fail(JSON.stringify(finding));
    assert.equal(finding.error.code, "state_corrupt");
    return finding.error.message.slice(paths.workDir.length + 1);
  });
  assert.match(messages.join("\n"), /^a\/sandbox.json is damaged: it is no JSON$/m);
  assert.match(messages.join("\n"), /^b\/sandbox.json is damaged: it is no JSON$/m);
  assert.match(messages.join("\n"), /^c\/sandbox.json is damaged: format: /m);
  assert.match(messages.join("\n"), /^d\/sandbox.json is damaged: it is over \d+ bytes$/m);
});

test("ending what runs in a directory, known by nothing else", async () => {
  await using dir = await makeTmpDir("work");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dir.path }, 0);
  const workDir = await createWorkDir(paths, { name: "vm", owner: gone });
  const child = spawn("sleep", ["60"], { cwd: workDir, detached: true, stdio: "ignore" });
  await once(child, "spawn");
  const exited = once(child, "exit");
  assert.deepEqual(await endProcessesIn(workDir), [child.pid]);
  assert.deepEqual(await exited, [null, "SIGKILL"]);
  assert.equal(findProcess(child.pid ?? 0), undefined);
  await removeWorkDir(workDir, self);
  assert.deepEqual(await readdir(paths.workDir), []);
});

test("a path that is too long for a socket is refused before anything is made", async () => {
  await using dir = await makeTmpDir("work");
  const paths = resolveDataPaths({ FORKD_DATA_DIR: join(dir.path, "x".repeat(100)) }, 0);
  await assert.rejects(createWorkDir(paths, { name: "vm", owner: self }), { code: "bad_request" });
  assert.deepEqual(await readdir(dir.path), []);
});
