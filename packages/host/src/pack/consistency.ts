import { ForkdError } from "@forkd/api";
import { scratchLayerFile, snapshotFiles } from "../store/layout.ts";
import { type Manifest, readManifest } from "../store/manifest.ts";
import { type ForkdManifest, memberPath } from "./manifest.ts";
import { requiresOf } from "./requires.ts";
import { invalid } from "./tar-read.ts";

/**
 * Whether the manifest of a snapshot, in the directory to which it was unpacked, is what the pack's
 * manifest says of it: the very bytes, its parent, the files that it needs, and for the last of the
 * chain what a host must have. Throws pack_invalid.
 */
export async function requireConsistent(
  pack: ForkdManifest,
  place: number,
  dir: string,
): Promise<Manifest> {
  const link = pack.chain[place];
  if (link === undefined) throw new ForkdError("internal", `the pack has no link ${place}`);
  const { tag } = link;
  const { manifest, sha256 } = await readStaged(dir);
  if (sha256 !== link.manifest_sha256 || manifest.tag !== tag) {
    throw invalid(`the manifest of '${tag}' is not the one that was packed`);
  }
  const parent = place === 0 ? undefined : pack.chain[place - 1];
  const isNext =
    manifest.parent?.tag === parent?.tag &&
    manifest.parent?.manifest_sha256 === parent?.manifest_sha256;
  if (!isNext) throw invalid(`'${tag}' is no link of the one before it`);
  requireFiles(pack, manifest);
  if (tag === pack.tag) requireRequires(pack, manifest);
  return manifest;
}

async function readStaged(dir: string): ReturnType<typeof readManifest> {
  try {
    return await readManifest(dir);
  } catch (error) {
    if (!(error instanceof ForkdError)) throw error;
    const [, what = error.message] = /snapshot\.json:? (.*)/s.exec(error.message) ?? [];
    throw invalid(`a manifest in the pack cannot be used: ${what}`, error);
  }
}

/** By name, with their sizes. */
function filesOf({ files, parent, scratch }: Manifest): Map<string, number | undefined> {
  const memory = parent === null ? snapshotFiles.memory : snapshotFiles.diff;
  const layers = (scratch?.layers ?? []).map(
    ({ size }, place) => [scratchLayerFile(place), size] as const,
  );
  return new Map<string, number | undefined>([
    [snapshotFiles.manifest, undefined],
    [snapshotFiles.index, files.index?.size],
    [snapshotFiles.vmstate, files.vmstate.size],
    [memory, files.memory.size],
    ...layers,
  ]);
}

function requireFiles({ files }: ForkdManifest, manifest: Manifest): void {
  const { tag } = manifest;
  const prefix = memberPath({ kind: "snapshot", tag, name: "" });
  const packed = new Map(
    files
      .filter(({ path }) => path.startsWith(prefix))
      .map(({ path, size }) => [path.slice(prefix.length), size]),
  );
  const needed = filesOf(manifest);
  for (const [name, size] of needed) {
    const isRight = packed.has(name) && (size === undefined || packed.get(name) === size);
    if (!isRight) throw invalid(`'${tag}' needs ${name}, which is not in the pack as it should be`);
  }
  const surplus = [...packed.keys()].find((name) => !needed.has(name));
  if (surplus !== undefined) throw invalid(`'${tag}' has no ${surplus}`);
}

/** What was checked against this host before must be what will be run. */
function requireRequires({ requires }: ForkdManifest, manifest: Manifest): void {
  const real = requiresOf(manifest, new Set());
  const keys = [
    "engine",
    "engine_version",
    "accel",
    "cpu",
    "memory_mib",
    "agent_protocol",
  ] as const;
  const lie = keys.find((key) => requires[key] !== real[key]);
  if (lie !== undefined) throw invalid(`the pack says another ${lie} than its snapshot`);
}
