import { existsSync } from "node:fs";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { engineDefaults } from "@forkd/host/config/engine-settings.ts";
import type { BootKernel, MemoryImage } from "@forkd/host/engine/engine.ts";
import {
  FirecrackerEngine,
  type FirecrackerOptions,
} from "@forkd/host/engine/firecracker/engine.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { copyExtents, type Extent } from "../conformance/layers.ts";
import { writeElf } from "./kernel-fixture.ts";

const sources = join(import.meta.dirname, "../fakes/firecracker");
const python = join(import.meta.dirname, "../../guest/runtime/python.py");
/** Small programs on a busy host. */
const buildTimeoutMs = 120_000;

const built = new Map<string, Promise<unknown>>();

/** Builds what test/fakes/firecracker has, into a directory. Throws what the compiler says. */
export async function buildFakes(target: "all" | "build/disk-guest"): Promise<string> {
  const make = ["make", "-s", "-C", sources, target];
  const building = built.get(target) ?? run(make, { timeoutMs: buildTimeoutMs });
  built.set(target, building);
  await building;
  return join(sources, "build");
}

/** A request that a stand-in got. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
}

/**
 * A stand-in for Firecracker of a test's own: programs, and beside them what is to go wrong. See
 * test/fakes/firecracker.
 */
export class FakeFirecracker {
  readonly dir: string;
  readonly binary: string;
  readonly jailer: string;
  readonly #log: string;
  #version = "1.16.1";

  private constructor(dir: string) {
    this.dir = dir;
    this.binary = join(dir, "firecracker");
    this.jailer = join(dir, "jailer");
    this.#log = join(dir, "requests");
  }

  /** `dir` is made. Throws what the compiler says. */
  static async make(dir: string): Promise<FakeFirecracker> {
    const build = await buildFakes("all");
    await mkdir(dir, { recursive: true, mode: 0o755 });
    const fake = new FakeFirecracker(dir);
    await copyFile(join(build, "firecracker"), fake.binary);
    await copyFile(join(build, "jailer"), fake.jailer);
    await fake.faults();
    return fake;
  }

  /** One that another process has made. */
  static at(dir: string): FakeFirecracker {
    return new FakeFirecracker(dir);
  }

  /** What goes wrong from now on, a line of fake.conf each; see faults.c. None mends it all. */
  async faults(...lines: readonly string[]): Promise<void> {
    const always = [`version ${this.#version}`, `log ${this.#log}`, `python ${python}`];
    await writeFile(join(this.dir, "fake.conf"), `${[...always, ...lines].join("\n")}\n`);
  }

  async setVersion(version: string): Promise<void> {
    this.#version = version;
    await this.faults();
  }

  /** Every request so far, by all that were started, but those in a jail. */
  async requests(): Promise<SeenRequest[]> {
    if (!existsSync(this.#log)) return [];
    const lines = (await readFile(this.#log, "utf8")).trim().split("\n");
    return lines.map((line) => {
      const { method, path, body } = JSON.parse(line) as Record<string, string>;
      return { method: `${method}`, path: `${path}`, ...(body && { body: JSON.parse(body) }) };
    });
  }

  /** An engine of it, not jailed unless `changes` say so. */
  engine(changes: Partial<FirecrackerOptions> = {}): FirecrackerEngine {
    return new FirecrackerEngine({
      find: async () => ({ firecracker: this.binary, jailer: this.jailer }),
      jail: null,
      cacheDir: join(this.dir, "cache"),
      cpuTemplate: null,
      kvmTrialMs: engineDefaults.kvmTrialMs,
      flatten: (image) => flattenInto(join(this.dir, "flat"), image),
      kvmDevice: "/dev/null",
      ...changes,
    });
  }

  /** Files that do for a kernel, an initramfs and a root image. */
  async bootFiles(): Promise<{ readonly kernel: BootKernel; readonly rootImage: string }> {
    const file = (name: string): string => join(this.dir, name);
    await writeFile(file("vmlinux"), writeElf({ ".text": "none" }));
    for (const name of ["vmlinuz", "initrd", "root.img"]) await writeFile(file(name), name);
    const kernel = {
      vmlinuz: file("vmlinuz"),
      vmlinux: file("vmlinux"),
      initrd: file("initrd"),
    };
    return { kernel, rootImage: file("root.img") };
  }
}

let flats = 0;

/** One whole file of an image, as the store makes it. */
export async function flattenInto(dir: string, image: MemoryImage): Promise<string> {
  if (image.overlay === null) return image.base;
  await mkdir(dir, { recursive: true });
  flats += 1;
  const flat = join(dir, `${flats}.img`);
  await run(["cp", "--sparse=always", image.base, flat]);
  await copyExtents(image.overlay.file, flat, await readExtents(image.overlay.extents));
  return flat;
}

async function readExtents(path: string): Promise<Extent[]> {
  const table = await readFile(path);
  return Array.from({ length: table.length / 16 }, (_, i) => ({
    offset: Number(table.readBigUInt64LE(i * 16)),
    length: Number(table.readBigUInt64LE(i * 16 + 8)),
  }));
}
