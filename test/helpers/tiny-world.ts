import assert from "node:assert/strict";
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Engine, Machine, MemoryImage, RestoredVm, Vm } from "@forkd/host/engine/engine.ts";
import { VmJournal } from "@forkd/host/engine/firecracker/journal.ts";
import { fileKey, writableFiles } from "@forkd/host/linux/writable-files.ts";
import { eventually } from "./eventually.ts";
import { liveRam } from "./live-ram.ts";
import { askedOffset, featuresOffset, type TinyGuest } from "./tiny-guest.ts";
import { lowRamBytes, vmGenIdIn } from "./vmgenid.ts";

const mib = 1024 * 1024;
const memoryMib = 64;
/** More than the RAM: a jail's limit of file sizes must allow it. */
const scratchBytes = 96 * mib;

/** What a tiny guest is restored from. */
export interface TinyFrozen {
  readonly memory: MemoryImage;
  readonly vmstateFile: string;
  /** Null leaves out the disk that its state names. */
  readonly scratch: string | null;
}

export interface TinyWorldOptions {
  readonly engine: Engine;
  /** Empty. */
  readonly dir: string;
  readonly cpu: string;
  readonly guest: TinyGuest;
}

/** A tiny guest of Firecracker with a disk that says `begin`, frozen, and its children. */
export class TinyWorld implements AsyncDisposable {
  readonly #engine: Engine;
  readonly #dir: string;
  readonly #machine: Machine;
  readonly #guest: TinyGuest;
  readonly #vms: Vm[] = [];
  #dirs = 0;

  private constructor({ engine, dir, cpu, guest }: TinyWorldOptions) {
    this.#engine = engine;
    this.#dir = dir;
    this.#guest = guest;
    this.#machine = { accel: "kvm", cpu, vcpus: 1, memoryMib, nic: true };
  }

  /** Boots a parent, and freezes it when it has spoken and counted. */
  static async boot(options: TinyWorldOptions): Promise<TinyWorld> {
    const { engine, dir, guest } = options;
    const world = new TinyWorld(options);
    const file = (name: string): string => join(dir, name);
    await writeFile(file("vmlinux"), guest.elf);
    for (const name of ["initrd", "root.img"]) await writeFile(file(name), Buffer.alloc(4096));
    await writeFile(file("scratch.0"), "begin");
    await using disk = await open(file("scratch.0"), "r+");
    await disk.truncate(scratchBytes);
    const parent = await engine.boot({
      workDir: await world.#newDir(),
      machine: world.#machine,
      kernel: { vmlinuz: file("vmlinux"), vmlinux: file("vmlinux"), initrd: file("initrd") },
      rootImage: file("root.img"),
      memoryFile: file("memory"),
      upperMib: null,
      scratch: { file: file("scratch.0"), format: "raw" },
    });
    world.#vms.push(parent);
    await eventually(() => assert.ok(parent.consoleTail().includes(guest.words)));
    await world.countsBeyond(parent, 0n);
    await parent.pause();
    await parent.saveState(file("vmstate"));
    await parent.stop();
    return world;
  }

  get frozen(): TinyFrozen & { readonly scratch: string } {
    const memory = { base: join(this.#dir, "memory"), overlay: null };
    const vmstateFile = join(this.#dir, "vmstate");
    return { memory, vmstateFile, scratch: join(this.#dir, "scratch.0") };
  }

  async restore({ memory, vmstateFile, scratch }: TinyFrozen): Promise<TinyChild> {
    const workDir = await this.#newDir();
    const vm = await this.#engine.restore({
      workDir,
      machine: this.#machine,
      rootImage: join(this.#dir, "root.img"),
      memory,
      vmstateFile,
      scratch: scratch === null ? null : { kind: "file", frozen: scratch },
      dieWithParent: true,
      cgroups: [],
      network: null,
    });
    this.#vms.push(vm);
    return { vm, workDir, image: memory };
  }

  async capture({ vm, image }: TinyChild): Promise<TinyFrozen & { readonly scratch: string }> {
    const at = await this.#newDir();
    const file = (name: string): string => join(at, name);
    const files = { vmstate: file("vmstate"), pages: file("pages"), extents: file("extents") };
    await vm.capture({
      mode: "stopped",
      all: false,
      image,
      files,
      disks: [{ kind: "copy", to: file("scratch"), bytes: scratchBytes }],
      maxPauseMs: null,
      durable: false,
      beforeStop: async () => undefined,
      afterResume: async () => undefined,
      onPivot: () => undefined,
    });
    const overlay = { file: files.pages, extents: files.extents };
    const memory = { base: image.base, overlay };
    return { memory, vmstateFile: files.vmstate, scratch: file("scratch") };
  }

  /** Waits until a guest has got on: what is captured then is not what it began with. */
  async countsBeyond({ process: { pid } }: Vm, last: bigint): Promise<void> {
    const range = { offset: this.#guest.counterOffset, bytes: 8 };
    await eventually(async () => {
      const counter = (await liveRam(pid, memoryMib * mib, range))?.readBigUInt64LE() ?? 0n;
      assert.ok(counter > last, `it does not count on from ${last}`);
    });
  }

  /** Where a frozen guest had got to: of a capture, by the pages over its image. */
  counterIn({ memory }: TinyFrozen): Promise<bigint> {
    return numberAt(memory.overlay?.file ?? memory.base, this.#guest.counterOffset);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#vms.map((vm) => vm.stop()));
  }

  async #newDir(): Promise<string> {
    this.#dirs += 1;
    const dir = join(this.#dir, `d${this.#dirs}`);
    await mkdir(dir);
    return dir;
  }
}

export interface TinyChild {
  readonly vm: RestoredVm;
  readonly workDir: string;
  readonly image: MemoryImage;
}

/** The one file that Firecracker itself has open for writing: in its own directory. */
export async function diskOf({ vm, workDir }: TinyChild): Promise<string> {
  const { dir } = await VmJournal.open(workDir);
  const path = join(dir, "scratch.img");
  const writable = (await writableFiles(vm.process.pid)).map(({ key }) => key);
  assert.ok(writable.includes(fileKey(path)), `it does not write ${path}`);
  return path;
}

/**
 * Of a disk guest: what its disk holds must be what its memory says is done, or has asked for and
 * not heard of.
 */
export async function assertOneInstant(world: TinyWorld, frozen: TinyFrozen): Promise<void> {
  const { memory, scratch } = frozen;
  const done = await world.counterIn(frozen);
  const asked = await numberAt(memory.overlay?.file ?? memory.base, askedOffset);
  const written = await numberAt(scratch ?? assert.fail(), 0);
  assert.ok(done <= written && written <= asked, `${done} done, ${asked} asked, ${written} there`);
}

/** What a counting guest saw of its processor: ECX of CPUID's leaf 1. */
export function featuresIn({ memory }: TinyFrozen): Promise<bigint> {
  return numberAt(memory.overlay?.file ?? memory.base, featuresOffset);
}

/** A counting guest has no driver for its disk, so the words on it come from outside. */
export async function writeWord(path: string, word: string): Promise<void> {
  await using handle = await open(path, "r+");
  await handle.write(word, 0);
}

export async function wordIn(path: string): Promise<string> {
  return (await readAt(path, 0, 5)).toString("latin1");
}

/** VMGENID: by it a kernel that knows it is told that it is another machine now. */
export async function generationOf({ vm }: TinyChild): Promise<string> {
  const range = { offset: 0, bytes: lowRamBytes };
  const lowRam = await liveRam(vm.process.pid, memoryMib * mib, range);
  return vmGenIdIn(lowRam ?? assert.fail()) ?? assert.fail("there is no VMGENID");
}

export async function generationIn({ memory }: TinyFrozen): Promise<string> {
  return vmGenIdIn(await readAt(memory.base, 0, lowRamBytes)) ?? assert.fail("there is no VMGENID");
}

async function numberAt(path: string, offset: number): Promise<bigint> {
  return (await readAt(path, offset, 8)).readBigUInt64LE();
}

async function readAt(path: string, offset: number, bytes: number): Promise<Buffer> {
  await using handle = await open(path, "r");
  return (await handle.read(Buffer.alloc(bytes), 0, bytes, offset)).buffer;
}
