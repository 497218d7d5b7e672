import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, limits, parseSnapshotTag, type SnapshotTag } from "@forkd/api";
import { layout } from "../store/layout.ts";
import { progressOf } from "./progress.ts";
import type { Finish, UnpackScope } from "./scope.ts";
import type { Archive } from "./source.ts";
import { writeSparse } from "./sparse-writer.ts";
import type { StagedSnapshot } from "./staging.ts";
import { invalid } from "./tar-read.ts";
import type { UpstreamFile, UpstreamManifest } from "./upstream-manifest.ts";
import { takeSidecar } from "./upstream-sidecar.ts";

const mib = 1024 * 1024;
/** What a file of upstream's may be at most; its README's largest guest has 2 GiB. */
const sizeMax: Readonly<Record<UpstreamFile, number>> = {
  "snapshot.json": mib,
  vmstate: 64 * mib,
  "rootfs.ext4": limits.rootfsMaxMib * mib,
  "memory.bin": 64 * 1024 * mib,
};

const foreign = "it is upstream's: its guest has no agent that makes a child unique, so it is kept";

interface Link {
  /** What it will be called here. */
  readonly tag: SnapshotTag;
  readonly files: readonly DeclaredFile[];
  readonly parentHash: string | undefined;
}

interface DeclaredFile {
  /** In the archive. */
  readonly member: string;
  readonly name: UpstreamFile;
  readonly size: number;
  readonly sha256: string;
}

interface StagedLink extends Link {
  readonly staged: StagedSnapshot;
}

/**
 * Takes a pack of upstream's, version 1 or 2, with the root image in a file beside it. Its
 * snapshots are listed and never run; nothing that its manifest names as a path is used. Throws
 * what unpackSnapshot throws.
 */
export async function takeUpstreamPack(
  scope: UnpackScope,
  manifest: UpstreamManifest,
  archive: Archive,
): Promise<Finish> {
  const { order, staging } = scope;
  const links = linksOf(manifest, order.tag);
  const files = links.flatMap((link) => link.files);
  for (const { member, name, size } of files) {
    if (size > sizeMax[name]) throw invalid(`${member} is too large: ${size} bytes`);
  }
  await staging.requireRoom(files.reduce((sum, { size }) => sum + size, 0));
  const staged: StagedLink[] = [];
  for (const [place, link] of links.entries()) {
    const isHead = place === links.length - 1;
    const snapshot = await staging.snapshot(link.tag, isHead && order.force);
    staged.push({ ...link, staged: snapshot });
  }
  await takeFiles(scope, staged, archive);
  return () => finish(scope, manifest, staged);
}

function linksOf(manifest: UpstreamManifest, head: SnapshotTag | null): Link[] {
  if (manifest.forkd_pack_version === 1) {
    const files = manifest.files.map((file) => ({ ...file, member: file.path, name: file.path }));
    return [{ tag: head ?? hubless(manifest.tag), files, parentHash: undefined }];
  }
  const { chain, tag } = manifest;
  const tags = chain.map((link) => link.tag);
  if (new Set(tags).size !== tags.length) throw invalid("the chain has a tag twice");
  if (tags.at(-1) !== tag) throw invalid(`the chain does not end with '${tag}'`);
  return chain.map((link, place) => {
    if (link.parent_tag !== tags[place - 1]) {
      throw invalid(`'${link.tag}' is no link of the one before it`);
    }
    const files = link.files.map((file) => {
      return { ...file, member: `${link.tag}/${file.path}`, name: file.path };
    });
    const isHead = place === chain.length - 1;
    return {
      tag: isHead ? (head ?? link.tag) : link.tag,
      files,
      parentHash: link.parent_content_hash,
    };
  });
}

/** A hub's packs have the tag `owner/name`, which no snapshot may have. */
function hubless(tag: string): SnapshotTag {
  try {
    return parseSnapshotTag(tag);
  } catch (error) {
    throw new ForkdError("invalid_tag", `the pack's tag ${JSON.stringify(tag)} cannot be used`, {
      hint: "name another: forkd unpack --tag TAG",
      cause: error,
    });
  }
}

/** Every file that is declared, once, with its bytes. */
async function takeFiles(
  { order, pages }: UnpackScope,
  links: readonly StagedLink[],
  { reader, signal }: Archive,
): Promise<void> {
  const missing = new Map(
    links.flatMap(({ files, staged }) =>
      files.map((file) => [file.member, { file, path: join(staged.copy.dir, file.name) }] as const),
    ),
  );
  const total = links.flatMap(({ files }) => files).reduce((sum, { size }) => sum + size, 0);
  const onBytes = progressOf(order, total);
  for (let file = await reader.next(); file !== null; file = await reader.next()) {
    signal.throwIfAborted();
    const found = missing.get(file.name);
    const shown = JSON.stringify(file.name);
    if (found === undefined) throw invalid(`${shown} is not declared, or in the pack twice`);
    if (found.file.size !== file.size) throw invalid(`${shown} has not the size that is declared`);
    missing.delete(file.name);
    await writeSparse(reader, file, { path: found.path, onBytes });
    const sha256 = await pages.run("hash", { file: found.path });
    if (sha256 !== found.file.sha256) throw invalid(`${shown} is not what was packed`);
  }
  const [lost] = missing.keys();
  if (lost !== undefined) throw invalid(`${lost} is declared and not in the pack`);
}

async function finish(
  scope: UnpackScope,
  manifest: UpstreamManifest,
  links: readonly StagedLink[],
): Promise<Awaited<ReturnType<Finish>>> {
  const { store } = scope.host;
  const sidecar = await takeSidecar(scope, manifest);
  for (const [place, link] of links.entries()) {
    const isHead = place === links.length - 1;
    await writeRecord(scope, link, {
      parent: links[place - 1]?.tag,
      rootfs: isHead ? sidecar.path : undefined,
    });
  }
  const published: SnapshotTag[] = [];
  try {
    for (const { tag, staged } of links) {
      await staged.copy.publishForeign();
      published.push(tag);
    }
  } catch (error) {
    for (const tag of published.reverse()) await store.remove(tag, "orphan");
    throw error;
  }
  const infos = await store.list();
  const snapshots = published.flatMap((tag) => infos.filter((info) => info.tag === tag));
  const tag = published.at(-1) ?? parseSnapshotTag(manifest.tag);
  return { tag, snapshots, reused: [], warnings: [foreign, ...sidecar.warnings] };
}

/**
 * The snapshot's record in upstream's form, with the paths that are right here. What else the
 * packed one says is dropped: the volumes of another host are paths that a VMM would open.
 */
async function writeRecord(
  { host }: UnpackScope,
  { tag, files, staged, parentHash }: StagedLink,
  { parent, rootfs }: { parent: SnapshotTag | undefined; rootfs: string | undefined },
): Promise<void> {
  const dir = layout.snapshotDir(host.paths, tag);
  const own = files.some(({ name }) => name === "rootfs.ext4");
  const image = own ? join(dir, "rootfs.ext4") : rootfs;
  const record = {
    vmstate: join(dir, "vmstate"),
    memory: join(dir, "memory.bin"),
    volumes: [],
    ...(parent !== undefined && { parent_tag: parent }),
    ...(parentHash !== undefined && { parent_content_hash: parentHash }),
    ...(image !== undefined && { rootfs: image }),
  };
  const path = join(staged.copy.dir, "snapshot.json");
  await writeFile(path, `${JSON.stringify(record, null, 2)}\n`);
}
