import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { toForkdError } from "@forkd/api";
import { resolveEngineSettings } from "@forkd/host/config/engine-settings.ts";
import { cpuOf, hostCpu } from "@forkd/host/engine/firecracker/cpu.ts";
import { FirecrackerEngine } from "@forkd/host/engine/firecracker/engine.ts";
import { type JailPolicy, jailDefaults } from "@forkd/host/engine/firecracker/jail.ts";
import { locateFirecracker } from "@forkd/host/store/firecracker.ts";
import { skipWithout } from "../helpers/capability.ts";
import { flattenInto } from "../helpers/fake-firecracker.ts";
import { statusOf } from "../helpers/process-status.ts";
import { countingGuest, diskGuest, type TinyGuest } from "../helpers/tiny-guest.ts";
import {
  assertOneInstant,
  diskOf,
  featuresIn,
  generationIn,
  generationOf,
  type TinyChild,
  type TinyFrozen,
  TinyWorld,
  wordIn,
  writeWord,
} from "../helpers/tiny-world.ts";
import { engineConformance } from "./engine-suite.ts";
import { qemuSubject } from "./qemu-subject.ts";

/** Set by `npm run test:firecracker -- --binary PATH`. */
const binary = process.env["FORKD_TEST_FIRECRACKER"] ?? "";

const skip =
  (binary === "" && "needs a Firecracker: npm run test:firecracker -- --binary PATH") ||
  skipWithout("root", "kvm", "guest-agent");

const dir = await mkdtemp(join(tmpdir(), "forkd-fcr-"));
await mkdir(join(dir, "cache"));
after(() => rm(dir, { recursive: true, force: true }));

const engineIn = (jail: JailPolicy | null): FirecrackerEngine =>
  new FirecrackerEngine({
    find: async () => (await locateFirecracker(binary)) ?? null,
    jail,
    cacheDir: join(dir, "cache"),
    cpuTemplate: null,
    kvmTrialMs: resolveEngineSettings(process.env).kvmTrialMs,
    flatten: (image) => flattenInto(join(dir, "flat"), image),
  });

// Before any test is there: the hook that removes the directory runs after the last one known.
const noLinux = skip || skipWithout("qemu") || (await whyNoLinux());

/** A KVM without the processor's help (kvm_pvm) lets guests see what the host's CPUID says. */
const hostsOwnCpuid =
  !["kvm_amd", "kvm_intel"].some((name) => existsSync(`/sys/module/${name}`)) &&
  "needs a KVM by the processor's own virtualisation (kvm_amd, kvm_intel)";

const jails = { unjailed: null, jailed: jailDefaults };
for (const [how, jail] of Object.entries(jails)) {
  describe(`a guest of some instructions, ${how}`, { skip }, () => tinyLife(jail));
}

function tinyLife(jail: JailPolicy | null): void {
  let world: TinyWorld;

  before(async () => {
    world = await bootTiny(jail, countingGuest());
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
  });

  test("is forked as a user of its own, with its system calls filtered", async () => {
    const { vm } = await world.restore(world.frozen);
    assert.equal(statusOf(vm.process.pid, "Seccomp"), "2");
    const uid = Number(statusOf(vm.process.pid, "Uid").split("\t")[0]);
    assert.equal(uid >= jailDefaults.uidFirst, jail !== null, `it runs as ${uid}`);
    await vm.stop();
  });

  test("counts on in a fork, in its captures, and in a fork of one", async () => {
    const child = await world.restore(world.frozen);
    await child.vm.resume();
    const counts = [await world.counterIn(world.frozen)];
    const counted = async (of: TinyChild): Promise<TinyFrozen> => {
      await world.countsBeyond(of.vm, counts.at(-1) ?? 0n);
      const captured = await world.capture(of);
      counts.push(await world.counterIn(captured));
      return captured;
    };
    await counted(child);
    const second = await counted(child);
    await child.vm.stop();
    const grandchild = await world.restore(second);
    await grandchild.vm.resume();
    await counted(grandchild);
    await grandchild.vm.stop();
    assert.equal(new Set(counts).size, 4);
    assert.deepEqual([...counts].sort(ascending), counts);
    assert.equal(await world.counterIn(world.frozen), counts[0], "the image stays as it was");
  });

  test("writes to its disk what its memory says, in each capture and in forks", {
    skip: skipWithout("compiler"),
  }, async () => {
    await using writers = await bootTiny(jail, await diskGuest());
    await assertOneInstant(writers, writers.frozen);
    let from: TinyFrozen = writers.frozen;
    for (let generation = 0; generation < 2; generation += 1) {
      const child = await writers.restore(from);
      await child.vm.resume();
      for (let turn = 0; turn < 3; turn += 1) {
        // It waits for its disk, so it gets on only if what it had asked for is done.
        await writers.countsBeyond(child.vm, (await writers.counterIn(from)) + 1n);
        from = await writers.capture(child);
        await assertOneInstant(writers, from);
      }
      await child.vm.stop();
    }
    await assertOneInstant(writers, writers.frozen);
  });

  test("has a disk of its own, and its captures have that of their instant", async () => {
    const [child, other] = [await world.restore(world.frozen), await world.restore(world.frozen)];
    const disk = await diskOf(child);
    await child.vm.resume();
    await writeWord(disk, "first");
    const first = await world.capture(child);
    await writeWord(disk, "later");
    const second = await world.capture(child);
    await writeWord(disk, "after");
    const disks = [world.frozen.scratch, await diskOf(other), first.scratch, second.scratch];
    assert.deepEqual(await Promise.all(disks.map(wordIn)), ["begin", "begin", "first", "later"]);
    const grandchild = await world.restore(second);
    assert.equal(await wordIn(await diskOf(grandchild)), "later");
    await Promise.all([child, other, grandchild].map(({ vm }) => vm.stop()));
  });

  test("does not start without the disk that its state names", async () => {
    const restored = world.restore({ ...world.frozen, scratch: null });
    await assert.rejects(restored, { code: "engine_failed", message: /scratch\.img/ });
  });

  test("sees the processor that a template shows", {
    skip: hostsOwnCpuid,
  }, async () => {
    await using templated = await bootTiny(jail, countingGuest(), await cpuOf(await noSse3()));
    assert.equal((await featuresIn(world.frozen)) & sse3, sse3, "the host's own has it");
    assert.equal((await featuresIn(templated.frozen)) & sse3, 0n);
    const child = await templated.restore(templated.frozen);
    await child.vm.resume();
    await templated.countsBeyond(child.vm, await templated.counterIn(templated.frozen));
  });

  test("is told by VMGENID that it is another machine, each time", async () => {
    const [a, b] = [await world.restore(world.frozen), await world.restore(world.frozen)];
    const ids = [await generationIn(world.frozen), await generationOf(a), await generationOf(b)];
    assert.equal(new Set(ids).size, 3, `no two of ${ids} are one`);
    await Promise.all([a.vm.stop(), b.vm.stop()]);
  });
}

async function bootTiny(
  jail: JailPolicy | null,
  guest: TinyGuest,
  cpu = hostCpu(),
): Promise<TinyWorld> {
  const own = await mkdtemp(join(dir, "t-"));
  return await TinyWorld.boot({ engine: engineIn(jail), dir: own, cpu, guest });
}

/** Of ECX of CPUID's leaf 1. */
const sse3 = 1n;

/** The path of a CPU template of an operator's, which takes that bit from the host's processor. */
async function noSse3(): Promise<string> {
  const modifiers = [{ register: "ecx", bitmap: `0b${"x".repeat(31)}0` }];
  const leaf = { leaf: "0x1", subleaf: "0x0", flags: 0, modifiers };
  const path = join(dir, "no-sse3.json");
  await writeFile(path, JSON.stringify({ cpuid_modifiers: [leaf] }));
  return path;
}

const ascending = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0);

/** Why this host's KVM runs no stock kernel under this Firecracker; false when it does. */
async function whyNoLinux(): Promise<string | false> {
  try {
    await engineIn(null).probe((await qemuSubject(dir)).kernel);
    return false;
  } catch (error) {
    return `needs a KVM that runs the guest kernel: ${toForkdError(error).message}`;
  }
}

if (noLinux !== false) {
  test("engine firecracker, the real one", { skip: noLinux }, () => undefined);
} else {
  engineConformance("firecracker, the real one", async () => ({
    ...(await qemuSubject(dir)),
    engine: engineIn(null),
  }));
}
