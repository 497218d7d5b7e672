import { link } from "node:fs/promises";
import { ForkdError, type SnapshotTag } from "@forkd/api";
import { coveredBytes, encodeExtents } from "../store/extents.ts";
import { type Manifest, writeManifest } from "../store/manifest.ts";
import { findRootImage } from "../store/rootfs.ts";
import { requireConsistent } from "./consistency.ts";
import { type ForkdManifest, memberPath, type PackedFile } from "./manifest.ts";
import { progressOf } from "./progress.ts";
import { publishImages } from "./publish-images.ts";
import { publishSnapshots } from "./publish-snapshots.ts";
import { type Objection, objectionsTo } from "./requires.ts";
import type { Finish, UnpackScope } from "./scope.ts";
import type { Archive } from "./source.ts";
import { writeSparse } from "./sparse-writer.ts";
import type { TarFile } from "./tar-format.ts";
import { invalid } from "./tar-read.ts";
import { planTargets, reusedFile, type Targets } from "./targets.ts";

/** Takes the files of a pack of ours to staging directories. Throws what unpackSnapshot throws. */
export async function takeForkdPack(
  scope: UnpackScope,
  manifest: ForkdManifest,
  archive: Archive,
): Promise<Finish> {
  const objections = await objectionsTo(manifest.requires, scope.host.facts);
  requireFit(manifest.tag, objections, scope.order.force);
  const targets = await planTargets(scope, manifest);
  const wanted = manifest.files.filter(({ path }) => targets.paths.has(path));
  await scope.staging.requireRoom(storedBytes(wanted));
  const written = await takeFiles(scope, { manifest, archive, targets });
  return async () => {
    const taken: Taken = { manifest, targets, written };
    await verifyFiles(scope, taken);
    await linkSame(scope, taken);
    const head = await verifySnapshots(scope, taken);
    await publishImages(scope.host, targets.paths);
    const snapshots = await publishSnapshots(scope.host.store, [...targets.snapshots.values()]);
    const warnings = objections.map(({ what }) => what);
    return { tag: head, snapshots, reused: targets.reused, warnings };
  };
}

interface Taken {
  readonly manifest: ForkdManifest;
  readonly targets: Targets;
  /** All files that were in the archive, also those that were not needed. */
  readonly written: ReadonlyMap<string, TarFile>;
}

/** Throws snapshot_incompatible with all that stands against it. */
function requireFit(tag: string, objections: readonly Objection[], force: boolean): void {
  const isForceable = objections.every((objection) => objection.isForceable);
  if (objections.length === 0 || (force && isForceable)) return;
  const reasons = objections.map(({ what }) => what).join("; ");
  throw new ForkdError("snapshot_incompatible", `this host cannot run '${tag}': ${reasons}`, {
    hint: isForceable
      ? "keep it all the same, until the host can: forkd unpack --force"
      : "bake the snapshot again on this host",
  });
}

function storedBytes(files: readonly PackedFile[]): number {
  return files.reduce((sum, file) => sum + file.stored_bytes, 0);
}

interface Taking {
  readonly manifest: ForkdManifest;
  readonly archive: Archive;
  readonly targets: Targets;
}

/** Every member that the manifest declares, once, and nothing else. */
async function takeFiles(
  { order }: UnpackScope,
  { manifest, archive, targets }: Taking,
): Promise<Taken["written"]> {
  const { reader, signal } = archive;
  const stored = manifest.files.filter(({ same_as }) => same_as === undefined);
  const missing = new Map(stored.map((file) => [file.path, file]));
  const onBytes = progressOf(order, storedBytes(stored));
  const written = new Map<string, TarFile>();
  for (let file = await reader.next(); file !== null; file = await reader.next()) {
    signal.throwIfAborted();
    requireDeclared(file, missing.get(file.name));
    missing.delete(file.name);
    const path = targets.paths.get(file.name);
    if (path !== undefined) await writeSparse(reader, file, { path, onBytes });
    else await reader.data(file, async (piece) => onBytes(piece.length));
    written.set(file.name, file);
  }
  const [lost] = missing.keys();
  if (lost !== undefined) throw invalid(`${lost} is declared and not in the pack`);
  return written;
}

function requireDeclared({ name, size, extents }: TarFile, file: PackedFile | undefined): void {
  const shown = JSON.stringify(name);
  if (file === undefined) throw invalid(`${shown} is not declared, or in the pack twice`);
  if (file.size === size && file.stored_bytes === coveredBytes(extents)) return;
  throw invalid(`${shown} has not the size that the manifest declares`);
}

/** By worker threads. Memory is proven by its index, later. */
async function verifyFiles(scope: UnpackScope, taken: Taken): Promise<void> {
  const { manifest, targets } = taken;
  const verified = await Promise.allSettled(
    manifest.files.map(async (file) => {
      const path = targets.paths.get(file.path);
      if (path !== undefined) await verifyFile(scope, { taken, file, path });
    }),
  );
  const failed = verified.find((each) => each.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

interface Verifying {
  readonly taken: Taken;
  readonly file: PackedFile;
  readonly path: string;
}

async function verifyFile({ pages }: UnpackScope, { taken, file, path }: Verifying): Promise<void> {
  const { sha256, stored_sha256: stored } = file;
  const table = encodeExtents(taken.written.get(file.path)?.extents ?? []);
  const isSame =
    (sha256 === undefined || (await pages.run("hash", { file: path })) === sha256) &&
    (stored === undefined || (await pages.run("hashExtents", { file: path, table })) === stored);
  if (!isSame) throw invalid(`${file.path} is not what was packed`);
}

/** Layers of disks that snapshots share; the first may be an ancestor's that is here already. */
async function linkSame(scope: UnpackScope, taken: Taken): Promise<void> {
  const { manifest, targets } = taken;
  for (const { path, same_as: other } of manifest.files) {
    const to = targets.paths.get(path);
    if (other === undefined || to === undefined) continue;
    const unpacked = targets.paths.get(other);
    const from = unpacked ?? reusedFile(scope, other);
    const file = manifest.files.find((each) => each.path === other);
    if (from === undefined || file === undefined) throw invalid(`${other} is not in the pack`);
    if (unpacked === undefined) await verifyFile(scope, { taken, file, path: from });
    await link(from, to);
  }
}

/** Each with the others and with its bytes, before the first gets its name. Returns the head's. */
async function verifySnapshots(
  { host, order }: UnpackScope,
  { manifest, targets }: Taken,
): Promise<SnapshotTag> {
  for (const [place, { tag }] of manifest.chain.entries()) {
    const staged = targets.snapshots.get(tag);
    if (staged === undefined) continue;
    const { dir } = staged.copy;
    const found = await requireConsistent(manifest, place, dir);
    await requireRootImage(host, found, targets);
    if (staged.tag !== tag) await rename(dir, found, staged.tag);
    await staged.copy.verify();
  }
  return order.tag ?? manifest.tag;
}

/** Children need it: in the pack, or on this host. */
async function requireRootImage(
  { paths }: UnpackScope["host"],
  { tag, rootfs }: Manifest,
  targets: Targets,
): Promise<void> {
  const { sha256 } = rootfs;
  const isPacked = (["image", "record"] as const).every((kind) =>
    targets.paths.has(memberPath({ kind, sha256 })),
  );
  if (isPacked || (await findRootImage(paths, sha256)) !== undefined) return;
  throw new ForkdError("image_not_found", `'${tag}' needs the root image ${sha256}`, {
    hint: "pack it without --thin, or unpack another snapshot of the same image first",
  });
}

/** Nothing in the pack was made from the last of its chain, so that one may get another name. */
async function rename(dir: string, manifest: Manifest, tag: SnapshotTag): Promise<void> {
  const { version, files } = manifest;
  if (version === 1 || files.index === null || files.vmstate.sha256 === null) {
    throw invalid(`'${manifest.tag}' is of format 1, which has no hashes`);
  }
  const { size, sha256 } = files.vmstate;
  const hashed = { ...files, index: files.index, vmstate: { size, sha256 } };
  await writeManifest(dir, { ...manifest, version, files: hashed, tag });
}
