import { link, lstat, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { ForkdError } from "@forkd/api";
import { isErrno, syncPath } from "../lib/atomic.ts";
import { startFilter } from "../lib/exec.ts";
import { cpuFlags } from "../linux/cpu-flags.ts";
import type { ProcessIdentity } from "../linux/proc.ts";
import type { Chain } from "../store/chain.ts";
import { undefinedIfMissing } from "../store/files.ts";
import { PageWorkers } from "../store/pages.ts";
import type { RootImage } from "../store/rootfs.ts";
import { makeStagingDir, removeTree } from "../store/staging-dirs.ts";
import { requireNamed } from "../store/verified-files.ts";
import { writeArchive } from "./archive.ts";
import type { PackHost } from "./host.ts";
import { encodeManifest, packVersion } from "./manifest.ts";
import type { PackOrder, PackReport } from "./orders.ts";
import { type PlannedFile, planFiles } from "./plan.ts";
import { progressOf } from "./progress.ts";
import { requiresOf } from "./requires.ts";
import { type Sink, toFile, toStream, type Written } from "./sinks.ts";
import { packStagingName, removeLeftoverPacks } from "./staging-file.ts";
import { type PackFacts, planUpstream, writeSidecar } from "./upstream-write.ts";

/** The largest pack onto a slow disk or network; what takes longer hangs. */
const packTimeoutMs = 24 * 60 * 60_000;

/** The library's own level, on all cores. */
const zstdArgv = ["zstd", "-q", "-T0"] as const;

/**
 * Writes a snapshot with its chain as one file or stream: docs/packs.md. Compression is zstd's, on
 * all cores; what is held in memory does not depend on the size. Throws snapshot_not_found and
 * whatever else the store's `open` does, bad_request for what the form cannot hold,
 * image_not_found, snapshot_exists when the file does, disk_full, tool_missing without zstd, or the
 * signal's reason.
 */
export async function packSnapshot(host: PackHost, order: PackOrder): Promise<PackReport> {
  order.signal?.throwIfAborted();
  if ("file" in order.to) await requirePlace(order.to);
  const chain = await host.store.chain(order.tag);
  const dir = await makeStagingDir(host.paths.snapshotsDir, host.owner, "pack");
  await using pages = new PageWorkers();
  try {
    const planned = await plan(host, order, { chain, pages, dir });
    const { paths, owner } = host;
    const beside = await writeBeside(order, planned, owner);
    const written = await writePack(order, { ...planned, paths, owner, pages });
    return { ...reportOf(order, chain, planned), ...written, root_image_path: beside };
  } finally {
    await removeTree(dir);
  }
}

interface Planning {
  readonly chain: Chain;
  readonly pages: PageWorkers;
  /** For files of this pack alone. */
  readonly dir: string;
}

/** What a pack is made of. */
interface Planned {
  readonly files: readonly PlannedFile[];
  readonly manifest: Buffer;
  /** Goes into a file beside the pack. */
  readonly rootImage: RootImage | null;
}

async function plan(
  { paths, forkdVersion }: PackHost,
  order: PackOrder,
  { chain, pages, dir }: Planning,
): Promise<Planned> {
  const scope = { paths, pages, dir };
  const facts = { order, forkdVersion, createdAt: `${new Date().toISOString().slice(0, -5)}Z` };
  if (order.format === "upstream") {
    const planned = await planUpstream(scope, chain, facts);
    return { ...planned, rootImage: order.images === "included" ? planned.rootImage : null };
  }
  const files = await planFiles(scope, chain, order.images === "included");
  return { files, manifest: await manifestOf(facts, chain, files), rootImage: null };
}

async function manifestOf(
  { order, forkdVersion, createdAt }: PackFacts,
  chain: Chain,
  files: readonly PlannedFile[],
): Promise<Buffer> {
  const { tag, description, baseImage } = order;
  const head = chain.at(-1) ?? chain[0];
  return encodeManifest({
    forkd_pack_version: packVersion,
    tag,
    ...(description !== null && { description }),
    base_image: baseImage ?? head.manifest.rootfs.ref,
    created_at: createdAt,
    forkd_version: forkdVersion,
    requires: requiresOf(head.manifest, await cpuFlags()),
    chain: chain.map((each) => ({ tag: each.tag, manifest_sha256: each.sha256 })),
    files: files.map(({ file }) => file),
  });
}

/** The pack gets its name after it: who sees the pack finds what belongs to it. */
async function writeBeside(
  { to, signal }: PackOrder,
  { rootImage }: Planned,
  owner: ProcessIdentity,
): Promise<string | null> {
  if (rootImage === null || !("file" in to)) return null;
  return await writeSidecar(to.file, rootImage, { owner, signal });
}

function reportOf({ tag, to, baseImage }: PackOrder, chain: Chain, { files }: Planned) {
  const { manifest } = chain.at(-1) ?? chain[0];
  return {
    tag,
    path: "file" in to ? to.file : null,
    content_bytes: totalOf(files),
    snapshots: chain.map((each) => each.tag),
    memory_mib: manifest.machine.memory_mib,
    base_image: baseImage ?? manifest.rootfs.ref,
  };
}

function totalOf(files: readonly PlannedFile[]): number {
  return files.reduce((sum, { file }) => sum + file.stored_bytes, 0);
}

interface PackParts extends Planned, Pick<PackHost, "paths" | "owner"> {
  readonly pages: PageWorkers;
}

/** To a stream, or to a file that gets its name when all is there and proven. */
async function writePack(order: PackOrder, parts: PackParts): Promise<Written> {
  const { to } = order;
  if ("stream" in to) return await compress(order, parts, toStream(to.stream));
  await removeLeftoverPacks(to.file, parts.owner);
  const staging = packStagingName(to.file, parts.owner);
  try {
    const written = await compress(order, parts, toFile(staging));
    await publish(staging, to);
    return written;
  } finally {
    await rm(staging, { force: true });
  }
}

/** A link cannot take a name that has come to be another's meanwhile; a rename can. */
async function publish(staging: string, { file, replace }: PackFile): Promise<void> {
  if (replace) await rename(staging, file);
  else {
    await link(staging, file).catch((error: unknown) => {
      if (isErrno(error, "EEXIST")) throw taken(file);
      throw error;
    });
  }
  await syncPath(dirname(file));
}

interface PackFile {
  readonly file: string;
  readonly replace: boolean;
}

/** Before anything is read: whether the file can be made. */
async function requirePlace({ file, replace }: PackFile): Promise<void> {
  const dir = await stat(dirname(file)).catch(undefinedIfMissing);
  if (dir?.isDirectory() !== true) {
    throw new ForkdError("bad_request", `there is no directory ${dirname(file)}`, {
      hint: "make it, or choose another name with --out",
    });
  }
  const found = await lstat(file).catch(undefinedIfMissing);
  if (found === undefined || (replace && !found.isDirectory())) return;
  throw taken(file);
}

function taken(file: string): ForkdError {
  return new ForkdError("snapshot_exists", `${file} exists already`, {
    hint: "choose another name with --out, or replace it with --force",
  });
}

/** The first of the parts that fails ends the others, and is what is told. */
async function compress(order: PackOrder, parts: PackParts, sink: Sink): Promise<Written> {
  const failed = new AbortController();
  const signals = [failed.signal, ...(order.signal === undefined ? [] : [order.signal])];
  const signal = AbortSignal.any(signals);
  const argv = [...zstdArgv, ...sink.args] as const;
  const zstd = startFilter(argv, { timeoutMs: packTimeoutMs, signal });
  const drained = sink.drain(zstd, signal);
  const progress = progressOf(order, totalOf(parts.files));
  const report = (bytes: number): void => {
    sink.took(bytes);
    progress(bytes);
  };
  const works = [drained, writeArchive(zstd, { ...parts, signal, report }), prove(parts)];
  try {
    await Promise.all([...works, zstd.ended]);
    return await drained;
  } catch (error) {
    failed.abort(error);
    await Promise.allSettled([...works, zstd.ended]);
    throw order.signal?.aborted === true ? order.signal.reason : error;
  }
}

/** Looks at the files whose names are their hashes, while they are written. */
async function prove({ paths, files, pages }: PackParts): Promise<void> {
  for (const { source, unproven } of files) {
    if (unproven !== null) await requireNamed({ paths, pages }, source, unproven);
  }
}
