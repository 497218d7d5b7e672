import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { VmmBroker } from "@forkd/host/engine/broker.ts";
import type { VmmProcess } from "@forkd/host/engine/process.ts";
import type { VmmSpawn } from "@forkd/host/engine/vmm-spawn.ts";
import { findProcess, isAlive } from "@forkd/host/linux/proc.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { brokerPids, childPids } from "../../helpers/child-pids.ts";
import { eventually } from "../../helpers/eventually.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

/** In the place of a VMM. */
const sleeper = ["sleep", "1000"];

function spawnOf(workDir: string, changes: Partial<VmmSpawn> = {}): VmmSpawn {
  const nothing = { cgroups: [], sockets: 0, files: [], preload: null };
  return { argv: sleeper, workDir, dieWithParent: true, ...nothing, ...changes };
}

const sh = (script: string): readonly string[] => ["/bin/sh", "-c", script];

describe("VMMs that the broker starts", () => {
  test("end with what they end with", async () => {
    await using tmp = await makeTmpDir("broker");
    const broker = new VmmBroker();
    const start = (script: string): Promise<VmmProcess> =>
      broker.start(spawnOf(tmp.path, { argv: sh(script) }));
    const failed = await (await start("sleep 0.1; echo words >&2; exit 7")).ended;
    assert.deepEqual([failed.exitCode, failed.signal, failed.log], [7, null, "words"]);
    const crashed = await (await start("sleep 0.1; kill -SEGV $$")).ended;
    assert.deepEqual([crashed.exitCode, crashed.signal], [null, "SIGSEGV"]);
    const asked = await start("sleep 1000");
    const { stopped, signal } = await asked.stop();
    assert.deepEqual([stopped, signal], [true, "SIGKILL"]);
    // Once more is no error, and kills nobody else.
    await asked.stop();
  });

  test("get their directory, files, sockets and log, and nothing of our environment", async () => {
    await using tmp = await makeTmpDir("broker");
    const file = join(tmp.path, "a file, with: all");
    await writeFile(file, "contents");
    const script = "sleep 0.1; pwd; ls /proc/self/fd | tr '\\n' ' '; cat <&4; env >&2; sleep 1000";
    const vmm = await new VmmBroker().start(
      spawnOf(tmp.path, { argv: sh(script), sockets: 1, files: [file] }),
    );
    const log = (): string => readFileSync(join(tmp.path, "vmm.log"), "utf8");
    await eventually(() => assert.match(log(), /GLIBC_TUNABLES/));
    const [dir, descriptors = ""] = log().split("\n");
    assert.equal(dir, tmp.path);
    // 0 to 2, the socket and the file; `ls` has one for the directory that it reads.
    assert.match(descriptors, /^0 1 2 3 4 5 contents(GLIBC_TUNABLES|PATH)=/);
    assert.doesNotMatch(log(), /HOME=|USER=/);
    assert.ok(!existsSync(join(tmp.path, "start-0.sock")), "another could connect");
    vmm.socket(0).destroy();
    await vmm.stop();
  });

  test("print nowhere when they are told to", async () => {
    await using tmp = await makeTmpDir("broker");
    const argv = sh("echo out; echo complaint >&2; sleep 0.1");
    const vmm = await new VmmBroker().start(spawnOf(tmp.path, { argv, stdout: "nowhere" }));
    assert.equal((await vmm.ended).log, "complaint");
  });

  test("that cannot be started say why, and leave no process", async () => {
    await using tmp = await makeTmpDir("broker");
    const broker = new VmmBroker();
    const before = childPids();
    const gone = broker.start(spawnOf(join(tmp.path, "gone")));
    await assert.rejects(gone, { code: "engine_failed", message: /gone: No such file/ });
    const unreadable = broker.start(spawnOf(tmp.path, { files: [join(tmp.path, "none")] }));
    await assert.rejects(unreadable, { code: "engine_failed", message: /none: No such file/ });
    const absent = await broker.start(spawnOf(tmp.path, { argv: ["/no/such/vmm"] })).then(
      async (vmm) => (await vmm.ended).log,
      (error: unknown) => String(error),
    );
    assert.match(absent, /\/no\/such\/vmm/);
    const split = broker.start(spawnOf(tmp.path, { argv: ["sleep", "1\0"] }));
    await assert.rejects(split, { code: "engine_failed", message: /not text/ });
    assert.deepEqual(childPids(), before);
  });

  test("are a hundred at once, and none is left", async () => {
    await using tmp = await makeTmpDir("broker");
    const broker = new VmmBroker();
    const before = childPids();
    const vmms = await Promise.all(
      Array.from({ length: 100 }, async (_, index) => {
        const workDir = join(tmp.path, String(index));
        await mkdir(workDir);
        return await broker.start(spawnOf(workDir));
      }),
    );
    assert.equal(childPids().length, before.length + vmms.length);
    const ends = await Promise.all(vmms.map((vmm) => vmm.stop()));
    assert.ok(ends.every(({ signal }) => signal === "SIGKILL"));
    assert.deepEqual(childPids(), before);
  });

  test("outlive a broker that was killed; the next one tells of their ends", async () => {
    await using tmp = await makeTmpDir("broker");
    const broker = new VmmBroker();
    const known = new Set(brokerPids());
    const [first, second, bound] = await Promise.all(
      [false, false, true].map((dieWithParent) =>
        broker.start(spawnOf(tmp.path, { dieWithParent })),
      ),
    );
    assert.ok(first !== undefined && second !== undefined && bound !== undefined);
    const [pid] = brokerPids().filter((each) => !known.has(each));
    process.kill(pid ?? assert.fail("no broker"), "SIGKILL");
    // It asked to die with its parent, which the broker was.
    await bound.ended;
    assert.ok(isAlive(first.identity) && isAlive(second.identity));
    process.kill(first.identity.pid, "SIGTERM");
    const end = await first.ended;
    assert.deepEqual([end.stopped, end.exitCode, end.signal], [false, null, null]);
    await second.stop();
    const third = await broker.start(spawnOf(tmp.path));
    assert.equal((await third.stop()).signal, "SIGKILL");
  });

  test("let their owner exit, and outlive it or not as they were asked to", async () => {
    await using tmp = await makeTmpDir("broker");
    const module = join(repoRoot, "packages/host/src/engine/broker.ts");
    const request = (dieWithParent: boolean): string =>
      JSON.stringify(spawnOf(tmp.path, { dieWithParent }));
    const script = `
      const { VmmBroker } = await import(${JSON.stringify(module)});
      const broker = new VmmBroker();
      const stays = await broker.start(${request(false)});
      const goes = await broker.start(${request(true)});
      console.log(stays.identity.pid, goes.identity.pid);`;
    const node = ["--conditions=forkd-source", "--input-type=module", "--eval", script];
    const owner = spawn(process.execPath, node, { stdio: ["ignore", "pipe", "inherit"] });
    const [line] = await once(owner.stdout, "data");
    const [stays = 0, goes = 0] = String(line).trim().split(" ").map(Number);
    try {
      const [code] = await once(owner, "exit");
      assert.equal(code, 0);
      await eventually(() => assert.equal(findProcess(goes), undefined));
      assert.ok(findProcess(stays) !== undefined);
    } finally {
      process.kill(stays, "SIGKILL");
    }
  });
});
