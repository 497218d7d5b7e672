import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { link, open, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { type EngineName, parseSnapshotTag, type SnapshotTag } from "@forkd/api";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import type { PackOrder, UnpackOrder } from "@forkd/host/pack/orders.ts";
import type { UnpackHost } from "@forkd/host/pack/scope.ts";
import { encodeHeader } from "@forkd/host/pack/tar-write.ts";
import { publishRootImage } from "@forkd/host/store/rootfs.ts";
import type { SnapshotStaging } from "@forkd/host/store/snapshots.ts";
import { type ChainStore, makeChainStore, memoryMib, type Pages, writeChanges } from "./chains.ts";
import { sampleFacts } from "./sample-manifest.ts";

/** A data directory with small snapshots that have all that a pack can hold, and what may run. */
export interface PackSite extends ChainStore {
  readonly host: UnpackHost;
}

const owner = identifyProcess(process.pid) ?? assert.fail();
export const tagOf = (name: string): SnapshotTag => parseSnapshotTag(name);

/** A host that runs whatever the samples need. */
export async function makePackSite(facts: Partial<UnpackHost["facts"]> = {}): Promise<PackSite> {
  const site = await makeChainStore();
  const host: UnpackHost = {
    paths: site.paths,
    store: site.store,
    owner,
    forkdVersion: "0.0.0",
    facts: {
      arch: process.arch,
      engineVersion: async () => "7.2.0",
      hasKvm: false,
      cpuFlags: new Set(),
      memoryMib: 4096,
      ...facts,
    },
  };
  return { ...site, host };
}

/** What each snapshot of the sample chain changes. */
export const samplePages: Readonly<Record<"base" | "one" | "two", Pages>> = {
  base: new Map([
    [0, 1],
    [7, 2],
    [300, 3],
  ]),
  one: new Map([
    [7, 4],
    [8, 5],
  ]),
  two: new Map([
    [0, 0],
    [511, 6],
  ]),
};

const layerBytes = 1024 * 1024;
const configSample = { env: { A: "b" }, user: "", workdir: "/w", cmd: [], entrypoint: [] };

/** Writes `base`, `one` and `two`, each a link of the one before, with a scratch disk and images. */
export async function fillSite({ paths, store }: PackSite): Promise<void> {
  const staged = join(paths.rootfsDir, "new.img");
  await writeSparseFile(staged, 3 * layerBytes, "root image");
  const image = await publishRootImage(paths, {
    path: staged,
    ref: "sample",
    config: configSample,
  });
  const base = await store.reserve(tagOf("base"), { replace: false });
  const staging = await base.stageBase();
  await writeChanges(staging, samplePages.base);
  await writeSparseFile(join(staging.dir, "scratch.0"), 64 * layerBytes, "disk");
  await publish(staging, { image: image.sha256, layers: 1 });
  await branch(store, { from: "base", to: "one", image: image.sha256 });
  await branch(store, { from: "one", to: "two", image: image.sha256 });
}

async function branch(
  store: ChainStore["store"],
  { from, to, image }: { from: string; to: "one" | "two"; image: string },
): Promise<void> {
  const parent = await store.open(tagOf(from));
  const reservation = await store.reserve(tagOf(to), { replace: false });
  const staging = await reservation.stageLink(parent);
  await writeChanges(staging, samplePages[to]);
  const layers = parent.scratch?.layers ?? [];
  for (const [i, { file }] of layers.entries()) await link(file, join(staging.dir, `scratch.${i}`));
  await writeFile(join(staging.dir, `scratch.${layers.length}`), `layer of ${to}`);
  await publish(staging, { image, layers: layers.length + 1 });
}

/** Writes `fire`, a base as Firecracker leaves one. Resolves to the hash of its root image. */
export async function fillFirecrackerSite({ paths, store }: PackSite): Promise<string> {
  const path = join(paths.rootfsDir, "new.img");
  await writeSparseFile(path, 3 * layerBytes, "root image");
  const { sha256 } = await publishRootImage(paths, { path, ref: "sample", config: configSample });
  const reservation = await store.reserve(tagOf("fire"), { replace: false });
  const staging = await reservation.stageBase();
  await writeChanges(staging, samplePages.base);
  await publish(staging, { image: sha256, layers: 0, engine: "firecracker" });
  return sha256;
}

interface SampleFacts {
  readonly image: string;
  readonly layers: number;
  /** QEMU when absent. */
  readonly engine?: EngineName;
}

async function publish(
  staging: SnapshotStaging,
  { image, layers, engine = "qemu" }: SampleFacts,
): Promise<void> {
  await writeFile(staging.vmstateFile, `state in ${layers}`);
  const facts = sampleFacts(memoryMib);
  const sizes = [];
  for (let place = 0; place < layers; place += 1) {
    const { size } = await stat(join(staging.dir, `scratch.${place}`));
    sizes.push({ format: place === 0 ? ("raw" as const) : ("qcow2" as const), size });
  }
  await staging.publish({
    ...facts,
    engine: { ...facts.engine, name: engine },
    rootfs: { ...facts.rootfs, sha256: image },
    scratch: layers === 0 ? null : { size_mib: 64, layers: sizes },
  });
}

async function writeSparseFile(path: string, bytes: number, text: string): Promise<void> {
  await using file = await open(path, "wx");
  await file.truncate(bytes);
  await file.write(text, 0);
  await file.write(text, bytes - 4096);
}

export function packOrder(
  tag: string,
  more: Partial<PackOrder> & Pick<PackOrder, "to">,
): PackOrder {
  const plain = {
    description: null,
    baseImage: null,
    images: "included",
    format: "forkd",
  } as const;
  return { tag: tagOf(tag), ...plain, ...more };
}

export function unpackOrder(more: Partial<UnpackOrder> & Pick<UnpackOrder, "from">): UnpackOrder {
  return { sha256: null, tag: null, force: false, ...more };
}

/** Runs zstd over bytes. */
export async function zstd(bytes: Buffer, ...args: string[]): Promise<Buffer> {
  const child = spawn("zstd", ["-q", "-c", ...args], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(bytes);
  const [out] = await Promise.all([buffer(child.stdout), once(child, "close")]);
  return out;
}

/** A member of an archive as it lies in it. */
export interface RawMember {
  readonly name: string;
  readonly header: Buffer;
  readonly data: Buffer;
}

const block = 512;

/** Takes an archive of dense and sparse members apart, tables included in the headers. */
export function membersOf(tar: Buffer): RawMember[] {
  const members: RawMember[] = [];
  for (let at = 0; tar[at] !== 0; ) {
    const start = at;
    const name = tar.toString("utf8", at, tar.indexOf(0, at));
    const size = Number.parseInt(tar.toString("latin1", at + 124, at + 135), 8);
    let isExtended = tar[at + 156] === 0x53 && tar[at + 482] === 1;
    at += block;
    while (isExtended) {
      isExtended = tar[at + 504] === 1;
      at += block;
    }
    const header = tar.subarray(start, at);
    const padded = size + ((block - (size % block)) % block);
    members.push({ name, header, data: tar.subarray(at, at + padded) });
    at += padded;
  }
  return members;
}

export function archiveOf(members: readonly RawMember[]): Buffer {
  return Buffer.concat([
    ...members.flatMap(({ header, data }) => [header, data]),
    Buffer.alloc(2 * block),
  ]);
}

/** A plain file of an archive. */
export function plainMember(name: string, content: string | Buffer): RawMember {
  const data = Buffer.from(content);
  const extents = data.length === 0 ? [] : [{ offset: 0, length: data.length }];
  const padding = Buffer.alloc((block - (data.length % block)) % block);
  const header = encodeHeader({ name, size: data.length, extents });
  return { name, header, data: Buffer.concat([data, padding]) };
}

/** The text of a pack's manifest, which is its first member. */
export function manifestTextOf([first]: readonly RawMember[]): string {
  return first === undefined ? "" : textOf(first);
}

/** The text of a member. */
export function textOf({ data }: RawMember): string {
  const [text = ""] = data.toString("utf8").split("\0");
  return text;
}

/** A pack's archive, without compression. */
export async function archiveIn(path: string): Promise<Buffer> {
  return await zstd(await readFile(path), "-d");
}
