import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import {
  findProcess,
  identifyProcess,
  isAlive,
  memoryUse,
  openFiles,
  parseStat,
} from "@forkd/host/linux/proc.ts";

test("a process name with spaces and parentheses does not shift the fields", () => {
  const rest = Array.from({ length: 20 }, (_, i) => String(i + 4)).join(" ");
  const stat = parseStat(`12 (a ) b (c) S ${rest}`);
  assert.deepEqual(stat, { state: "S", cpuTicks: 14 + 15, session: 6, nice: 19, startTicks: 22 });
});

test("a process is alive by pid, start time and boot, and by nothing less", async () => {
  const child = spawn("sleep", ["30"]);
  const identity = identifyProcess(child.pid ?? 0);
  assert.ok(identity !== undefined);
  assert.equal(isAlive(identity), true);
  assert.equal(isAlive({ ...identity, startTicks: identity.startTicks + 1 }), false);
  assert.equal(isAlive({ ...identity, bootId: "another" }), false);
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.equal(isAlive(identity), false);
  assert.equal(findProcess(identity.pid), undefined);
});

test("memory and open files of a process are read", async () => {
  const use = await memoryUse(process.pid);
  assert.ok(use.uniqueBytes > 1024 * 1024);
  assert.ok(use.proportionalBytes > 1024 * 1024);
  assert.ok((await openFiles(process.pid)).size > 2);
});
