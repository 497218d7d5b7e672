import assert from "node:assert/strict";
import { mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { toForkdError } from "@forkd/api";
import { resolveEngineSettings } from "@forkd/host/config/engine-settings.ts";
import type { MemoryImage, RestoredVm } from "@forkd/host/engine/engine.ts";
import { hostCpu } from "@forkd/host/engine/firecracker/cpu.ts";
import { FirecrackerEngine } from "@forkd/host/engine/firecracker/engine.ts";
import { type JailPolicy, jailDefaults } from "@forkd/host/engine/firecracker/jail.ts";
import { VmJournal } from "@forkd/host/engine/firecracker/journal.ts";
import { fileKey, writableFiles } from "@forkd/host/linux/writable-files.ts";
import { locateFirecracker } from "@forkd/host/store/firecracker.ts";
import { skipWithout } from "../helpers/capability.ts";
import { eventually } from "../helpers/eventually.ts";
import { flattenInto } from "../helpers/fake-firecracker.ts";
import { liveRam } from "../helpers/live-ram.ts";
import { statusOf } from "../helpers/process-status.ts";
import {
  liveTinyCounter,
  tinyCounterOffset,
  tinyGuestWords,
  writeTinyGuest,
} from "../helpers/tiny-guest.ts";
import { lowRamBytes, vmGenIdIn } from "../helpers/vmgenid.ts";
import { engineConformance } from "./engine-suite.ts";
import { qemuSubject } from "./qemu-subject.ts";

/** Set by `npm run test:firecracker -- --binary PATH`. */
const binary = process.env["FORKD_TEST_FIRECRACKER"] ?? "";
const memoryMib = 64;
/** More than the RAM: a jail's limit of file sizes must allow it. */
const scratchBytes = 96 * 1024 * 1024;

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
const machine = { accel: "kvm", cpu: hostCpu(), vcpus: 1, memoryMib, nic: true } as const;

// Before any test is there: the hook that removes the directory runs after the last one known.
const noLinux = skip || skipWithout("qemu") || (await whyNoLinux());

const jails = { unjailed: null, jailed: jailDefaults };
for (const [how, jail] of Object.entries(jails)) {
  const name = `a guest of some instructions is booted, frozen, forked and captured, ${how}`;
  test(name, { skip }, () => liveTinyLife(jail));
}

async function liveTinyLife(jail: JailPolicy | null): Promise<void> {
  const engine = engineIn(jail);
  const own = await mkdtemp(join(dir, "t-"));
  const file = (name: string): string => join(own, name);
  const newDir = async (name: string): Promise<string> => {
    await mkdir(file(name));
    return file(name);
  };
  await writeFile(file("vmlinux"), writeTinyGuest());
  for (const name of ["initrd", "root.img"]) await writeFile(file(name), Buffer.alloc(4096));
  const kernel = { vmlinuz: file("vmlinux"), vmlinux: file("vmlinux"), initrd: file("initrd") };
  const scratch = file("scratch.0");
  await writeDisk(scratch, "begin", scratchBytes);
  const parent = await engine.boot({
    workDir: await newDir("p"),
    machine,
    kernel,
    rootImage: file("root.img"),
    memoryFile: file("memory"),
    upperMib: null,
    scratch: { file: scratch, format: "raw" },
  });
  await eventually(() => assert.ok(parent.consoleTail().includes(tinyGuestWords)));
  await parent.pause();
  await parent.saveState(file("vmstate"));
  await parent.stop();
  const frozen = await counterIn(file("memory"));
  assert.ok(frozen > 0n, "the guest counted");

  const image = { base: file("memory"), overlay: null };
  const restore = async (name: string, memory: MemoryImage, from: FrozenParts) => {
    const workDir = await newDir(name);
    const rest = { dieWithParent: true, cgroups: [], network: null };
    const spec = { workDir, machine, rootImage: file("root.img"), memory };
    const { vmstate, scratch: frozenDisk } = from;
    const disk = frozenDisk === null ? null : ({ kind: "file", frozen: frozenDisk } as const);
    const state = { vmstateFile: vmstate, scratch: disk };
    return await engine.restore({ ...spec, ...state, ...rest });
  };
  const capture = async (vm: RestoredVm, from: MemoryImage, name: string) => {
    const at = await newDir(name);
    const files = {
      vmstate: join(at, "vmstate"),
      pages: join(at, "pages"),
      extents: join(at, "extents"),
    };
    await vm.capture({
      mode: "stopped",
      all: false,
      image: from,
      files,
      disks: [{ kind: "copy", to: join(at, "scratch"), bytes: scratchBytes }],
      maxPauseMs: null,
      durable: false,
      beforeStop: async () => undefined,
      afterResume: async () => undefined,
      onPivot: () => undefined,
    });
    const overlay = { file: files.pages, extents: files.extents };
    const scratch = join(at, "scratch");
    return { image: { base: from.base, overlay }, vmstate: files.vmstate, scratch };
  };

  const without = restore("w", image, { vmstate: file("vmstate"), scratch: null });
  await assert.rejects(without, { code: "engine_failed", message: /scratch\.img/ });
  const child = await restore("c", image, { vmstate: file("vmstate"), scratch });
  const { pid } = child.process;
  assert.equal(statusOf(pid, "Seccomp"), "2", "its system calls are filtered");
  const uid = Number(statusOf(pid, "Uid").split("\t")[0]);
  assert.equal(uid >= jailDefaults.uidFirst, jail !== null, `it runs as ${uid}`);
  const disk = await diskOf(child, file("c"));
  await child.resume();
  await countsBeyond(child, frozen);
  await writeDisk(disk, "first");
  const first = await capture(child, image, "s1");
  await countsBeyond(child, await counterIn(first.image.overlay.file));
  await writeDisk(disk, "later");
  const second = await capture(child, image, "s2");
  await writeDisk(disk, "after");
  const disks = await Promise.all([scratch, first.scratch, second.scratch].map(wordIn));
  assert.deepEqual(disks, ["begin", "first", "later"], "each is the disk of its instant");
  const counts = [
    frozen,
    await counterIn(first.image.overlay.file),
    await counterIn(second.image.overlay.file),
  ];
  assert.deepEqual([...counts].sort(ascending), counts, "it counts on");
  assert.equal(new Set(counts).size, 3);
  assert.equal(await counterIn(file("memory")), frozen, "the image stays as it was");

  const other = await restore("o", image, { vmstate: file("vmstate"), scratch });
  const generations = [await generationIn(file("memory")), ...(await generationsOf(child, other))];
  assert.equal(new Set(generations).size, 3, `no two of ${generations} are one`);
  await Promise.all([child.stop(), other.stop()]);

  const grandchild = await restore("g", second.image, second);
  assert.equal(await wordIn(await diskOf(grandchild, file("g"))), "later");
  await grandchild.resume();
  await countsBeyond(grandchild, counts[2] ?? 0n);
  const third = await capture(grandchild, second.image, "s3");
  await grandchild.stop();
  const last = await counterIn(third.image.overlay.file);
  assert.ok(last > (counts[2] ?? 0n), "a grandchild counts on from where it was captured");
}

/** Waits until a guest has got on: what is captured then is not what it began with. */
async function countsBeyond({ process: { pid } }: RestoredVm, last: bigint): Promise<void> {
  const ramBytes = memoryMib * 1024 * 1024;
  await eventually(async () => {
    assert.ok(((await liveTinyCounter(pid, ramBytes)) ?? 0n) > last, "it counts on");
  });
}

/** VMGENID: a kernel that knows it is told that it is another machine now. */
async function generationsOf(...vms: readonly RestoredVm[]): Promise<string[]> {
  const range = { offset: 0, bytes: lowRamBytes };
  const found = vms.map(async ({ process: { pid } }) => {
    const lowRam = await liveRam(pid, memoryMib * 1024 * 1024, range);
    return vmGenIdIn(lowRam ?? assert.fail()) ?? assert.fail("there is no VMGENID");
  });
  return await Promise.all(found);
}

async function generationIn(path: string): Promise<string> {
  await using handle = await open(path, "r");
  const { buffer } = await handle.read(Buffer.alloc(lowRamBytes), 0, lowRamBytes, 0);
  return vmGenIdIn(buffer) ?? assert.fail("there is no VMGENID");
}

interface FrozenParts {
  readonly vmstate: string;
  readonly scratch: string | null;
}

/** The one file that Firecracker itself has open for writing on a disk: in its own directory. */
async function diskOf({ process: { pid } }: RestoredVm, workDir: string): Promise<string> {
  const { dir: own } = await VmJournal.open(workDir);
  const path = join(own, "scratch.img");
  const writable = (await writableFiles(pid)).map(({ key }) => key);
  assert.ok(writable.includes(fileKey(path)), `it does not write ${path}`);
  return path;
}

/** The tiny guest has no driver for it, so the words come from outside. */
async function writeDisk(path: string, word: string, bytes?: number): Promise<void> {
  await using handle = await open(path, bytes === undefined ? "r+" : "wx");
  await handle.write(word, 0);
  if (bytes !== undefined) await handle.truncate(bytes);
}

async function wordIn(path: string): Promise<string> {
  await using handle = await open(path, "r");
  const { buffer } = await handle.read(Buffer.alloc(5), 0, 5, 0);
  return buffer.toString("latin1");
}

const ascending = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0);

async function counterIn(path: string): Promise<bigint> {
  await using handle = await open(path, "r");
  const { buffer } = await handle.read(Buffer.alloc(8), 0, 8, tinyCounterOffset);
  return buffer.readBigUInt64LE();
}

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
