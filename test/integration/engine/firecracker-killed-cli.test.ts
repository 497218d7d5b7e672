import assert from "node:assert/strict";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parseSnapshotTag } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { jailDefaults } from "@forkd/host/engine/firecracker/jail.ts";
import { FlatImages } from "@forkd/host/fork/flat-images.ts";
import { openForkService } from "@forkd/host/fork/open-service.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { identifyProcess, isAlive, processesIn } from "@forkd/host/linux/proc.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { type CliRun, forkd, startForkd } from "../../helpers/cli.ts";
import { FakeFirecracker } from "../../helpers/fake-firecracker.ts";
import { statusOf } from "../../helpers/process-status.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

const skip = skipWithout("root", "compiler", "guest-agent");
const tag = parseSnapshotTag("warm");

describe("a command line that is killed while its jailed VM runs", { skip }, () => {
  let tmp: TmpDir;
  let fake: FakeFirecracker;
  const dataDir = (): string => join(tmp.path, "data");
  const workDir = (): string => join(dataDir(), "work");
  let running: CliRun | undefined;

  before(async () => {
    tmp = await makeTmpDir("fck");
    await mkdir(dataDir(), { mode: 0o700 });
    fake = await FakeFirecracker.make(join(tmp.path, "fake"));
    await bake();
  });
  after(async () => {
    running?.process.kill("SIGKILL");
    for (const pid of await processesIn(workDir())) process.kill(pid, "SIGKILL");
    await tmp?.[Symbol.asyncDispose]();
  });

  async function bake(): Promise<void> {
    const paths = resolveDataPaths({ FORKD_DATA_DIR: dataDir() }, 0);
    const flat = new FlatImages(join(paths.cacheDir, "flat"));
    const flatten = flat.flatten.bind(flat);
    const engine = fake.engine({ flatten, jail: jailDefaults });
    const common = { paths, log: silentLogger, stateFile: null, engine };
    const service = await openForkService({ ...common, owner: "cli" });
    const { kernel, rootImage } = await fake.bootFiles();
    const request = {
      tag,
      image: await service.importImage(rootImage),
      kernel: { vmlinuz: kernel.vmlinux ?? assert.fail(), initrd: kernel.initrd },
      warm: { runtime: null, imports: [], command: null, ready: null, timeoutMs: 20_000 },
      ...{ memoryMib: 64, vcpus: 1, replace: false },
    };
    await service.bake(request, () => undefined);
    await service.close("kill");
  }

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
