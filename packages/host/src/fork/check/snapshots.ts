import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, type SnapshotTag, snapshotTagSchema } from "@forkd/api";
import { type Chain, ChainReader } from "../../store/chain.ts";
import { requireFile, undefinedIfMissing } from "../../store/files.ts";
import { layout, scratchLayerPattern, snapshotFiles } from "../../store/layout.ts";
import { PageWorkers } from "../../store/pages.ts";
import { findStaleStagingDirs, isStagingName } from "../../store/staging-dirs.ts";
import { VerifiedLayers } from "../../store/verified.ts";
import { type CheckScope, type Fault, type Findings, faultOf, stray, together } from "./fault.ts";

const knownNames: readonly string[] = Object.values(snapshotFiles);

/** What reads snapshots, without a word of what was found before. */
interface Readers {
  readonly chains: ChainReader;
  readonly verified: VerifiedLayers;
}

/** Every snapshot of the store, or one with its ancestors: all bytes that have a hash. */
export async function checkSnapshots(
  scope: CheckScope,
  only: SnapshotTag | null,
): Promise<Findings> {
  const { paths } = scope;
  const verified = new VerifiedLayers(layout.verifiedDir(paths), new PageWorkers());
  const readers = { chains: new ChainReader(paths), verified };
  const { tags, strays } = await look(scope, readers, only);
  const findings: Findings[] = [];
  for (const tag of tags) {
    scope.signal.throwIfAborted();
    findings.push(await checkSnapshot(scope, readers, tag));
  }
  return together([...findings, { checked: 0, bytes: 0, faults: strays }]);
}

interface Look {
  readonly tags: readonly SnapshotTag[];
  readonly strays: readonly Fault[];
}

async function look(
  { paths }: CheckScope,
  { chains }: Readers,
  only: SnapshotTag | null,
): Promise<Look> {
  if (only !== null) {
    // One that cannot be followed to its base is checked alone, which tells why.
    const chain = await chains.resolve(only).catch((error: unknown) => {
      if (error instanceof ForkdError && error.code !== "snapshot_not_found") return undefined;
      throw error;
    });
    return { tags: chain?.map(({ tag }) => tag) ?? [only], strays: [] };
  }
  const names = (await readdir(paths.snapshotsDir).catch(undefinedIfMissing)) ?? [];
  const parsed = names.map((name) => ({ name, tag: snapshotTagSchema.safeParse(name) }));
  const tags = parsed.flatMap(({ tag }) => (tag.success ? [tag.data] : []));
  const unknown = parsed.filter(({ name, tag }) => !tag.success && !isStagingName(name));
  const stale = await findStaleStagingDirs(paths.snapshotsDir);
  return {
    tags: tags.sort(),
    strays: [
      ...unknown.map(({ name }) => stray(join(paths.snapshotsDir, name), "it is no snapshot")),
      ...stale.map(leftover),
    ],
  };
}

function leftover(path: string): Fault {
  const why = "who was writing it is gone";
  return { kind: "stray", what: path, code: null, why, hint: "remove it with: forkd leaks --fix" };
}

/** Its own files; its ancestors are checked as snapshots of their own. */
async function checkSnapshot(
  { paths, onNotice }: CheckScope,
  { chains, verified }: Readers,
  tag: SnapshotTag,
): Promise<Findings> {
  onNotice(`reading ${tag}`);
  try {
    const chain = await chains.resolve(tag);
    const head = chain.at(-1) ?? chain[0];
    await requireFile(layout.rootImage(paths, head.manifest.rootfs.sha256), undefined);
    await verified.recheck(head);
    const strays = await strayFiles(head.dir, chain);
    return { checked: 1, bytes: hashedBytes(chain), faults: [...strays, ...unhashed(chain)] };
  } catch (error) {
    // Somebody may remove it meanwhile; then there is nothing to tell.
    if (error instanceof ForkdError && error.code === "snapshot_not_found") return together([]);
    return { checked: 1, bytes: 0, faults: [faultOf("snapshot", tag, error)] };
  }
}

function hashedBytes(chain: Chain): number {
  const { files } = (chain.at(-1) ?? chain[0]).manifest;
  return files.index === null ? 0 : files.vmstate.size + (files.memory.data_bytes ?? 0);
}

async function strayFiles(dir: string, chain: Chain): Promise<Fault[]> {
  const layers = (chain.at(-1) ?? chain[0]).manifest.scratch?.layers.length ?? 0;
  const isLayer = (name: string): boolean =>
    scratchLayerPattern.test(name) && Number(name.slice("scratch.".length)) < layers;
  const names = await readdir(dir);
  const unknown = names.filter((name) => !knownNames.includes(name) && !isLayer(name));
  return unknown.map((name) => stray(join(dir, name), "no snapshot has such a file"));
}

/** Only sizes can be compared then. */
function unhashed(chain: Chain): Fault[] {
  const head = chain.at(-1) ?? chain[0];
  if (head.indexFile !== null) return [];
  const why = "it is of an old format without hashes: its bytes cannot be checked";
  const hint = `write it anew with: forkd snapshot-compact --from ${head.tag} --to NEW`;
  return [{ kind: "snapshot", what: head.tag, code: null, why, hint }];
}
