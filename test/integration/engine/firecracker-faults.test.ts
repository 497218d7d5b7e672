import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ForkdError } from "@forkd/api";
import type { BootedVm, BootSpec } from "@forkd/host/engine/engine.ts";
import { endpoints } from "@forkd/host/engine/firecracker/contract.ts";
import { findProcess, processesIn } from "@forkd/host/linux/proc.ts";
import { Guest } from "../../conformance/captured-guest.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { childPids } from "../../helpers/child-pids.ts";
import { type FirecrackerWorld, makeFirecrackerWorld } from "../../helpers/firecracker-guest.ts";

const skip = skipWithout("root", "compiler", "guest-agent");
const shortMs = 800;

describe("failures of Firecracker", { skip }, () => {
  let dir: string;
  let world: FirecrackerWorld;
  let boots = 0;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "forkd-fcf-"));
    const timeouts = { socketMs: shortMs, requestMs: shortMs, loadMs: shortMs };
    world = await makeFirecrackerWorld({ dir, engineOf: (fake) => fake.engine({ timeouts }) });
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  /** Fails unless `work` does, in these words, and leaves no process of ours. */
  const assertFails = async (work: Promise<unknown>, expected: object): Promise<void> => {
    const before = childPids();
    await assert.rejects(work, expected);
    assert.deepEqual(childPids(), before);
  };
  const restore = () => Guest.restore(world, world.frozen);
  const boot = async (changes: Partial<BootSpec> = {}): Promise<BootedVm> => {
    boots += 1;
    const workDir = join(dir, `b${boots}`);
    await mkdir(workDir);
    const { kernel, rootImage } = await world.fake.bootFiles();
    const memoryFile = join(workDir, "memory");
    const spec = { workDir, machine: world.machine, kernel, rootImage, memoryFile };
    return await world.engine.boot({ ...spec, upperMib: null, scratch: null, ...changes });
  };
  const withFaults = async (lines: readonly string[], work: () => Promise<void>): Promise<void> => {
    await world.fake.faults(...lines);
    try {
      await work();
    } finally {
      await world.fake.faults();
    }
  };

  test("a program that ends at once fails the start with its words", () =>
    withFaults(["before start fail no such machine"], async () => {
      await assertFails(restore(), { code: "engine_failed", message: /no such machine/ });
      await assertFails(boot(), { code: "engine_failed", message: /no such machine/ });
    }));

  test("a socket that never appears fails the start at its deadline", () =>
    withFaults(["before start hang"], async () => {
      await assertFails(restore(), { code: "deadline_exceeded", message: /start/ });
      await assertFails(boot(), { code: "deadline_exceeded", message: /start/ });
    }));

  const bootSteps = Object.values(endpoints)
    .filter(({ method }) => method === "PUT")
    .map(({ path }) => path.replace("{drive_id}", "root"))
    .filter((path) => !/snapshot|network|cpu-config/.test(path));

  for (const path of bootSteps) {
    test(`a boot that is refused at ${path} ends with Firecracker's words`, () =>
      withFaults([`before PUT,${path} fail not today`], () =>
        assertFails(boot(), { code: "engine_failed", message: /not today/ }),
      ));

    test(`a VMM that dies at ${path} fails the boot with its last words`, () =>
      withFaults([`before PUT,${path} crash`], () =>
        assertFails(boot(), { code: "engine_failed", message: /SIGABRT.*told to crash/s }),
      ));
  }

  const load = "PUT,/snapshot/load";
  const loadFaults: Readonly<Record<string, { fault: string; expected: object }>> = {
    refused: { fault: `before ${load} fail bad CPU`, expected: { message: /bad CPU/ } },
    "never answered": { fault: `before ${load} hang`, expected: { code: "deadline_exceeded" } },
    "cut off": { fault: `before ${load} drop`, expected: { code: "engine_failed" } },
    "its end": { fault: `before ${load} crash`, expected: { message: /told to crash/ } },
    "its end once it is done": { fault: `after ${load} crash`, expected: { message: /crash/ } },
  };
  for (const [what, { fault, expected }] of Object.entries(loadFaults)) {
    test(`a load that is ${what} leaves nothing`, () =>
      withFaults([fault], () => assertFails(restore(), expected)));
  }

  test("an answer that is slow but in time is taken", () =>
    withFaults([`before ${load} slow 100`], async () => {
      const { vm } = await restore();
      await vm.stop();
    }));

  for (const call of ["pause", "resume"] as const) {
    test(`a VMM that dies at a ${call} fails it with its last words`, async () => {
      const { vm } = await Guest.open(world, world.frozen);
      if (call === "resume") await vm.pause();
      await withFaults(["before PATCH,/vm crash"], async () => {
        await assert.rejects(vm[call](), { code: "engine_failed", message: /told to crash/ });
        assert.equal((await vm.ended).stopped, false);
        await assert.rejects(vm.pause(), { code: "engine_failed" });
      });
      await vm.stop();
    });
  }

  test("a parent that cannot be saved leaves no state behind", async () => {
    const vm = await boot();
    await vm.pause();
    await withFaults(["before PUT,/snapshot/create fail no room"], async () => {
      const saved = vm.saveState(join(dir, "unsaved"));
      await assert.rejects(saved, { code: "engine_failed", message: /no room/ });
    });
    assert.equal(existsSync(join(dir, "unsaved")), false);
    await vm.stop();
  });

  test("a full disk is told apart", async () => {
    const vm = await boot();
    await vm.pause();
    const words = "Cannot write memory file: No space left on device (os error 28)";
    await withFaults([`before PUT,/snapshot/create fail ${words}`], () =>
      assert.rejects(vm.saveState(join(dir, "full")), { code: "disk_full" }),
    );
    await vm.stop();
  });

  test("a child that is killed and spawned again at once meets nothing of the old one", async () => {
    for (let round = 0; round < 15; round += 1) {
      const guest = await Guest.open(world, world.frozen);
      process.kill(guest.vm.process.pid, "SIGKILL");
    }
    const guest = await Guest.open(world, world.frozen);
    assert.equal(await guest.value("6 * 7"), "42");
    await guest.vm.stop();
  });

  test("a work directory with an old socket in it is refused, not waited for", async () => {
    const { vm, workDir } = await restore();
    const spec = { ...world.frozen, rootImage: world.rootImage, workDir };
    const again = world.engine.restore({
      ...spec,
      dieWithParent: true,
      cgroups: [],
      scratch: null,
      network: null,
    });
    await assertFails(again, (error: unknown) => error instanceof Error);
    assert.deepEqual(await processesIn(workDir), [vm.process.pid]);
    await vm.stop();
  });

  test("a saved state of another release is refused with what to do", async () => {
    await world.fake.setVersion("1.16.2");
    try {
      const hint = /bake it again/;
      await assertFails(restore(), { code: "engine_failed", message: /version 1.16.1/, hint });
    } finally {
      await world.fake.setVersion("1.16.1");
    }
  });

  test("a saved state of another CPU is refused before anything starts", async () => {
    const machine = { ...world.machine, cpu: "host:OtherVendor-1-2-3" };
    const other = Guest.restore(world, { ...world.frozen, machine });
    await assertFails(other, { code: "snapshot_incompatible", message: /OtherVendor-1-2-3/ });
  });

  test("a VM without a note, or with a broken one, is not adopted and left as it is", async () => {
    const { vm, workDir } = await restore();
    const spec = { process: vm.process, workDir };
    await writeFile(join(workDir, "firecracker.json"), "{");
    await assert.rejects(world.engine.adopt(spec), { code: "engine_failed" });
    await rm(join(workDir, "firecracker.json"));
    await assert.rejects(world.engine.adopt(spec), { code: "engine_failed" });
    assert.ok(findProcess(vm.process.pid));
    await vm.stop();
  });

  test("releases with known faults are refused, with the fault", async () => {
    const versions: Readonly<Record<string, RegExp>> = {
      "1.9.1": /older than 1\.10\.0/,
      "1.10.1": /vsock after a restore/,
      "1.16.0": /vsock after a restore/,
    };
    for (const [version, reason] of Object.entries(versions)) {
      await world.fake.setVersion(version);
      const refused = { code: "engine_unavailable", message: reason, hint: /firecracker install/ };
      await assert.rejects(world.fake.engine().version(), refused);
    }
    await world.fake.setVersion("1.16.1");
    assert.equal(await world.fake.engine().version(), "1.16.1");
  });

  test("a host where no trial guest speaks has no Firecracker, and says why", async () => {
    const { kernel } = await world.fake.bootFiles();
    const engine = world.fake.engine({ cacheDir: join(dir, "cache-2") });
    await withFaults(["before PUT,/actions fail no KVM here"], () =>
      assert.rejects(engine.probe(kernel), (error: unknown) => {
        assert.ok(error instanceof ForkdError);
        assert.equal(error.code, "engine_unavailable");
        assert.match(error.message, /no KVM here/);
        return true;
      }),
    );
    const missing = world.fake.engine({ cacheDir: join(dir, "cache-3"), kvmDevice: "/dev/no-kvm" });
    await assert.rejects(missing.probe(kernel), { message: /\/dev\/no-kvm is missing/ });
  });
});
