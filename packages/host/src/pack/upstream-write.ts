import { rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ForkdError } from "@forkd/api";
import { stringify } from "smol-toml";
import { syncPath } from "../lib/atomic.ts";
import { run } from "../lib/exec.ts";
import type { ProcessIdentity } from "../linux/proc.ts";
import type { Chain, Link } from "../store/chain.ts";
import { snapshotFiles } from "../store/layout.ts";
import { findRootImage, type RootImage } from "../store/rootfs.ts";
import { requireNamed } from "../store/verified-files.ts";
import type { PackedFile } from "./manifest.ts";
import type { PackOrder } from "./orders.ts";
import { dense, type PlannedFile, type PlanScope, planMemory, planSmall } from "./plan.ts";
import { packStagingName } from "./staging-file.ts";
import { type UpstreamManifest, upstreamManifestSchema } from "./upstream-manifest.ts";
import { sidecarName } from "./upstream-sidecar.ts";

/** The largest root image onto a slow disk. */
const sidecarTimeoutMs = 60 * 60_000;

/** What a pack of upstream's version 1 is made of. */
export interface UpstreamPlan {
  readonly files: readonly PlannedFile[];
  readonly manifest: Buffer;
  readonly rootImage: RootImage;
}

/** What the manifest of a pack says besides its files. */
export interface PackFacts {
  readonly order: PackOrder;
  readonly forkdVersion: string;
  readonly createdAt: string;
}

/**
 * The files of a base in the form that upstream's reader takes, version 1. Throws bad_request for
 * what that form cannot hold, image_not_found, and what reading the files throws.
 */
export async function planUpstream(
  scope: PlanScope,
  chain: Chain,
  facts: PackFacts,
): Promise<UpstreamPlan> {
  const link = requireHoldable(chain, facts.order);
  const rootImage = await requireRootImage(scope, link);
  const [, , state] = await planSmall(link);
  const memory = await planMemory(link);
  // Upstream knows of no index: all of the RAM is hashed, holes as zeros.
  const sha256 = await scope.pages.run("hash", { file: link.memoryFile });
  const files = [
    await planRecord(scope, link, rootImage),
    renamed(state, { path: "vmstate" }),
    renamed(memory, { path: "memory.bin", sha256 }),
  ];
  return { files, manifest: encode(link, facts, { files, rootImage }), rootImage };
}

function renamed(planned: PlannedFile, more: Pick<PackedFile, "path" | "sha256">): PlannedFile {
  return { ...planned, file: { ...planned.file, ...more } };
}

/** Upstream knows Firecracker alone, no scratch disks, and links only as whole RAMs. */
function requireHoldable(chain: Chain, { to, images, tag }: PackOrder): Link {
  const head = chain.at(-1) ?? chain[0];
  const { engine, scratch } = head.manifest;
  if (engine.name !== "firecracker") {
    throw unholdable(`'${tag}' is of ${engine.name}, upstream's packs are of Firecracker`);
  }
  if (scratch !== null) throw unholdable(`'${tag}' has a scratch disk, upstream's packs have none`);
  if (chain.length > 1) {
    throw new ForkdError("bad_request", `'${tag}' is a link, upstream's packs have whole RAMs`, {
      hint: `make it a base first: forkd snapshot-compact --from ${tag} --to NEW`,
    });
  }
  if ("stream" in to && images === "included") {
    throw new ForkdError(
      "bad_request",
      "a pack of upstream's has its root image in a file beside",
      {
        hint: "name a file with --out, or leave the root image out with --thin",
      },
    );
  }
  return head;
}

function unholdable(message: string): ForkdError {
  return new ForkdError("bad_request", message, { hint: "leave out --format" });
}

async function requireRootImage({ paths, pages }: PlanScope, link: Link): Promise<RootImage> {
  const { sha256 } = link.manifest.rootfs;
  const image = await findRootImage(paths, sha256);
  if (image === undefined) {
    throw new ForkdError("image_not_found", `the root image ${sha256} is not on this host`, {
      hint: "build it again with: forkd from-image REF --tag TAG",
    });
  }
  await requireNamed({ paths, pages }, image.path, sha256);
  return image;
}

/** Upstream's record of a snapshot. Its reader puts its own directory in place of ours. */
async function planRecord(
  { dir, pages }: PlanScope,
  { vmstateFile, memoryFile }: Link,
  { path: rootfs }: RootImage,
): Promise<PlannedFile> {
  const record = { vmstate: vmstateFile, memory: memoryFile, volumes: [], rootfs };
  const path = join(dir, snapshotFiles.manifest);
  await writeFile(path, `${JSON.stringify(record, null, 2)}\n`, { flag: "wx" });
  return await dense("snapshot.json", path, await pages.run("hash", { file: path }));
}

function encode(
  link: Link,
  { order, forkdVersion, createdAt }: PackFacts,
  { files, rootImage }: Pick<UpstreamPlan, "files" | "rootImage">,
): Buffer {
  const { sha256, path: target_path, sizeBytes: size } = rootImage;
  const manifest = {
    forkd_pack_version: 1,
    tag: order.tag,
    ...(order.description !== null && { description: order.description }),
    base_image: order.baseImage ?? link.manifest.rootfs.ref,
    created_at: createdAt,
    forkd_version: forkdVersion,
    files: files.map(({ file }) => ({ path: file.path, size: file.size, sha256: file.sha256 })),
    rootfs: { target_path, sha256, size },
  };
  // What we would refuse to read, nobody gets from us.
  const sound: UpstreamManifest = upstreamManifestSchema.parse(manifest);
  return Buffer.from(stringify(sound));
}

/** Who writes the file beside a pack, and until when. */
export interface SidecarWriter {
  readonly owner: ProcessIdentity;
  readonly signal: AbortSignal | undefined;
}

/**
 * Writes the root image to its file beside `pack`, under the name that upstream's reader looks for.
 * It is named by its content, so one that is there is replaced. Resolves to its path. Throws
 * disk_full, tool_missing, the signal's reason.
 */
export async function writeSidecar(
  pack: string,
  { path, sha256 }: RootImage,
  { owner, signal }: SidecarWriter,
): Promise<string> {
  const file = join(dirname(pack), sidecarName(sha256));
  const staging = packStagingName(file, owner);
  try {
    await run(["zstd", "-q", "-T0", "-o", staging, path], {
      timeoutMs: sidecarTimeoutMs,
      ...(signal !== undefined && { signal }),
    });
    await syncPath(staging);
    await rename(staging, file);
  } finally {
    await rm(staging, { force: true });
  }
  return file;
}
