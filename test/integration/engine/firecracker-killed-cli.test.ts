import assert from "node:assert/strict";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parseSnapshotTag } from "@forkd/api";
import { jailDefaults } from "@forkd/host/engine/firecracker/jail.ts";
import { isErrno } from "@forkd/host/lib/atomic.ts";
import { identifyProcess, isAlive, processesIn, waitUntilGone } from "@forkd/host/linux/proc.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { type CliRun, forkd, startForkd } from "../../helpers/cli.ts";
import { FakeFirecracker } from "../../helpers/fake-firecracker.ts";
import { firecrackerBake, openFirecrackerService } from "../../helpers/firecracker-service.ts";
import { statusOf } from "../../helpers/process-status.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

const skip = skipWithout("root", "compiler", "guest-agent");
const goneMs = 10_000;
const tag = parseSnapshotTag("warm");

/** Ends what the test has left, if it has failed; resolves when it is gone. */
async function killAll(pids: readonly number[]): Promise<void> {
  const left = pids.map(identifyProcess).filter((identity) => identity !== undefined);
  for (const { pid } of left) {
    try {
      process.kill(pid, "SIGKILL");
    } catch (error) {
      if (!isErrno(error, "ESRCH")) throw error;
    }
  }
  await Promise.all(left.map((identity) => waitUntilGone(identity, goneMs)));
}

describe("a command line that is killed while its jailed VM runs", { skip }, () => {
  let tmp: TmpDir | undefined;
  let fake: FakeFirecracker;
  const dataDir = (): string => join(tmp?.path ?? assert.fail("before() failed"), "data");
  const workDir = (): string => join(dataDir(), "work");
  let running: CliRun | undefined;

  before(async () => {
    tmp = await makeTmpDir("fck");
    await mkdir(dataDir(), { mode: 0o700 });
    fake = await FakeFirecracker.make(join(tmp.path, "fake"));
    const options = { fake, dataDir: dataDir(), owner: "cli", jail: jailDefaults } as const;
    const service = await openFirecrackerService(options);
    await service.bake(await firecrackerBake(service, fake, tag), () => undefined);
    await service.close("kill");
  });
  after(async () => {
    running?.process.kill("SIGKILL");
    await running?.ended;
    if (tmp === undefined) return;
    await killAll(await processesIn(workDir()));
    await tmp[Symbol.asyncDispose]();
  });

  test("leaves it to the next start of forkd, which ends it", async () => {
    const own = { dataDir: dataDir(), env: { FORKD_FIRECRACKER: fake.binary } };
    running = startForkd(["fork", "--tag", tag, "-n", "1", "--settle-secs", "3600"], own);
    await running.said(/all sockets up/);
    const [name = assert.fail("it has no work directory")] = await readdir(workDir());
    const [pid = assert.fail("it has no VMM")] = await processesIn(join(workDir(), name));
    assert.ok(Number(statusOf(pid, "Uid").split("\t")[0]) >= jailDefaults.uidFirst);
    const vmm = identifyProcess(pid) ?? assert.fail("it has ended");
    running.process.kill("SIGKILL");
    assert.equal((await running.ended).signal, "SIGKILL");
    // No signal of its parent's death reaches a process that has changed its user.
    assert.equal(isAlive(vmm), true);
    assert.deepEqual(await readdir(workDir()), [name]);

    const next = await forkd(["images"], own);
    assert.equal(next.code, 0, next.stderr);
    assert.equal(isAlive(vmm), false);
    assert.deepEqual(await readdir(workDir()), []);
  });
});
