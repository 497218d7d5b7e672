import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { gunzip, zstdDecompress } from "node:zlib";
import { ForkdError } from "@forkd/api";
import { run } from "../lib/exec.ts";
import { findSection } from "./elf.ts";

/** What the guest needs before it has a root: devices, overlay, the kinds of root image, vsock. */
export const guestModules = [
  "virtio_mmio",
  "virtio_blk",
  "virtio_net",
  "virtio_console",
  "virtio_rng",
  "overlay",
  "erofs",
  "squashfs",
  "vmw_vsock_virtio_transport",
] as const;

export interface KernelModule {
  /** As the kernel spells it, with underscores. */
  readonly name: string;
  /** Uncompressed ELF object. */
  readonly data: Buffer;
}

const moduleBytesMax = 32 * 1024 * 1024;
const moduleFilesMax = 20_000;
const fileName = /^([\w-]+)\.ko(?:\.(xz|zst|gz))?$/;

/** The kernel takes - and _ in module names for the same. */
export function moduleName(text: string): string {
  return text.replaceAll("-", "_");
}

/**
 * Names of the modules to load, each after all that it depends on. `dependencies` answers undefined
 * for a module that is built in or absent: it is left out. Throws RangeError on a circle.
 */
export async function planLoadOrder(
  wanted: readonly string[],
  dependencies: (name: string) => Promise<readonly string[] | undefined>,
): Promise<string[]> {
  const state = new Map<string, "open" | "done">();
  const order: string[] = [];
  const visit = async (name: string): Promise<void> => {
    if (state.get(name) === "done") return;
    if (state.get(name) === "open") throw new RangeError(`module ${name} depends on itself`);
    state.set(name, "open");
    const needs = await dependencies(name);
    for (const need of needs ?? []) await visit(moduleName(need));
    state.set(name, "done");
    if (needs !== undefined) order.push(name);
  };
  for (const name of wanted) await visit(moduleName(name));
  return order;
}

/** The names in the `depends` line of a module's .modinfo section. */
export function readDependencies(module: Buffer): string[] {
  const info = findSection(module, ".modinfo")?.toString("latin1") ?? "";
  const line = info.split("\0").find((field) => field.startsWith("depends="));
  return (line ?? "")
    .slice("depends=".length)
    .split(",")
    .filter((name) => name !== "");
}

/**
 * The modules of `modulesDir` (lib/modules/RELEASE) that the guest needs, in load order. Reads the
 * modules themselves: packages ship no modules.dep, which depmod makes when one is installed.
 */
export async function collectModules(modulesDir: string): Promise<KernelModule[]> {
  const files = await indexModules(modulesDir);
  const data = new Map<string, Buffer>();
  const order = await planLoadOrder(guestModules, async (name) => {
    const path = files.get(name);
    if (path === undefined) return undefined;
    const module = await readModule(path);
    data.set(name, module);
    return readDependencies(module);
  });
  return order.flatMap((name) => {
    const module = data.get(name);
    return module === undefined ? [] : [{ name, data: module }];
  });
}

async function indexModules(modulesDir: string): Promise<ReadonlyMap<string, string>> {
  const entries = await readdir(modulesDir, { recursive: true, withFileTypes: true });
  if (entries.length > moduleFilesMax) {
    throw new ForkdError("image_invalid", `${modulesDir} holds more than ${moduleFilesMax} files`);
  }
  return new Map(
    entries.flatMap((entry): [string, string][] => {
      const name = fileName.exec(entry.name)?.[1];
      return name === undefined || !entry.isFile()
        ? []
        : [[moduleName(name), join(entry.parentPath, entry.name)]];
    }),
  );
}

async function readModule(path: string): Promise<Buffer> {
  const codec = fileName.exec(basename(path))?.[2];
  const options = { maxOutputLength: moduleBytesMax };
  if (codec === "gz") return promisify(gunzip)(await readFile(path), options);
  if (codec === "zst") return promisify(zstdDecompress)(await readFile(path), options);
  if (codec === undefined) return readFile(path);
  await run([
    "prlimit",
    `--fsize=${moduleBytesMax}`,
    "xz",
    "--decompress",
    "--keep",
    "--force",
    path,
  ]);
  return readFile(path.slice(0, -".xz".length));
}
