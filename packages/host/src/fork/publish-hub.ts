import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { isErrno, writeFileAtomic } from "../lib/atomic.ts";
import { sha256File } from "../lib/hash.ts";
import type { AnyManifest } from "../pack/manifest.ts";
import { readPack } from "../pack/source.ts";
import {
  type HubIndex,
  type HubVersion,
  latestVersion,
  parseHubIndex,
  parseHubRef,
} from "../remote/hub-index.ts";

const packSuffix = ".forkd-snapshot.tar.zst";
const indexName = "registry.json";
/** Natural order: 1.10 is after 1.9. */
const versionOrder = new Intl.Collator("en", { numeric: true });

export interface PublishOrder {
  /** Absolute; has OWNER/NAME/VERSION.forkd-snapshot.tar.zst. */
  readonly dir: string;
  readonly baseUrl: URL;
  readonly onNotice: (text: string) => void;
  readonly signal: AbortSignal;
}

interface Found {
  readonly id: string;
  readonly version: string;
  readonly path: string;
}

/**
 * Writes the index of a directory of packs, in one piece, beside them. Reads each pack's manifest
 * and hashes the whole of it. Throws bad_request when there is no pack, pack_invalid.
 */
export async function publishHub(
  order: PublishOrder,
): Promise<{ readonly path: string; readonly index: HubIndex }> {
  const packages: Record<string, PackageEntry> = {};
  const groups = Map.groupBy(await findPacks(order.dir), ({ id }) => id);
  for (const [id, packs] of groups) packages[id] = await describePackage(order, packs);
  const path = join(order.dir, indexName);
  const text = `${JSON.stringify({ schema_version: 1, packages }, null, 2)}\n`;
  // What no client would take must not be published.
  const index = parseHubIndex(text, path);
  await writeFileAtomic(path, text, { mode: 0o644 });
  return { path, index };
}

interface PackageEntry {
  readonly description: string | null;
  readonly versions: Readonly<Record<string, HubVersion>>;
}

/** Its versions, the lowest first; the last is the latest, and says what the package is. */
async function describePackage(
  order: PublishOrder,
  packs: readonly Found[],
): Promise<PackageEntry> {
  const described: [string, HubVersion][] = [];
  let description: string | null = null;
  for (const pack of packs) {
    order.signal.throwIfAborted();
    order.onNotice(`reading ${pack.id}@${pack.version}`);
    const found = await describePack(order, pack);
    described.push([pack.version, found.version]);
    description = found.description ?? description;
  }
  const latest = described.slice(-1).map(([, facts]) => [latestVersion, facts] as const);
  return { description, versions: Object.fromEntries([...described, ...latest]) };
}

/** By name, then by version, the lowest first. */
async function findPacks(dir: string): Promise<Found[]> {
  const names = await readdir(dir, { recursive: true }).catch((error: unknown) => {
    if (isErrno(error, "ENOENT") || isErrno(error, "ENOTDIR")) return [];
    throw error;
  });
  const found = names.flatMap((name): Found[] => {
    if (!name.endsWith(packSuffix)) return [];
    const [owner, pack, version, ...more] = name.slice(0, -packSuffix.length).split("/");
    const ref = more.length > 0 ? undefined : parseHubRef(`${owner}/${pack}@${version}`);
    if (ref === undefined || ref.version === latestVersion) return [];
    return [{ id: `${ref.owner}/${ref.name}`, version: ref.version, path: join(dir, name) }];
  });
  if (found.length === 0) {
    throw new ForkdError("bad_request", `${dir} has no OWNER/NAME/VERSION${packSuffix}`, {
      hint: `make one with: forkd pack --tag TAG --out DIR/OWNER/NAME/VERSION${packSuffix}`,
    });
  }
  const byVersion = (a: Found, b: Found): number => versionOrder.compare(a.version, b.version);
  return found.toSorted((a, b) => (a.id === b.id ? byVersion(a, b) : a.id < b.id ? -1 : 1));
}

async function describePack(
  { baseUrl, signal }: PublishOrder,
  { id, version, path }: Found,
): Promise<{ readonly version: HubVersion; readonly description: string | null }> {
  const manifest = await readManifest(path, signal);
  const { size } = await stat(path);
  const requires = manifest.forkd_pack_version === 3 ? manifest.requires : null;
  return {
    description: manifest.description ?? null,
    version: {
      url: `${baseUrl.href.replace(/\/$/, "")}/${id}/${encodeURIComponent(version)}${packSuffix}`,
      sha256: await sha256File(path),
      size_bytes: size,
      memory_mib: requires?.memory_mib ?? null,
      base_image: manifest.base_image ?? null,
      created_at: manifest.created_at,
    },
  };
}

/** Ends the reading of a pack once its manifest, which comes first, is there. */
class Enough extends Error {
  readonly manifest: AnyManifest;

  constructor(manifest: AnyManifest) {
    super("the manifest is all that is wanted");
    this.manifest = manifest;
  }
}

async function readManifest(file: string, signal: AbortSignal): Promise<AnyManifest> {
  const order = { from: { file }, sha256: null, tag: null, force: false, signal };
  try {
    return await readPack(order, (manifest) => Promise.reject(new Enough(manifest)));
  } catch (error) {
    if (error instanceof Enough) return error.manifest;
    throw error instanceof ForkdError ? error.within(file) : error;
  }
}
