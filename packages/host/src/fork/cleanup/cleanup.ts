import { lstat, readdir, realpath } from "node:fs/promises";
import { join } from "node:path";
import { toForkdError } from "@forkd/api";
import type { DataPaths } from "../../config/data-paths.ts";
import { run } from "../../lib/exec.ts";
import { pathsHeldUnder } from "../../linux/held-paths.ts";
import { removeTree } from "../../store/staging-dirs.ts";
import { fixLeaks, listLeaks } from "../leaks/leaks.ts";
import type { CleanupItem } from "./item.ts";
import { type Place, placesOf, upstreamPlace } from "./places.ts";
import { removeRootImage, unusedRootImages } from "./root-images.ts";

export interface CleanupOptions {
  readonly paths: DataPaths;
  /** The directory for temporary files, where upstream's programs leave theirs. */
  readonly tmpDir: string;
  /** Root images that no snapshot is of, too: they are made again from where they came from. */
  readonly images: boolean;
  /** Now, as Date.now(): what was used shortly before stays. */
  readonly nowMs: number;
  /** Remove; else only tell. */
  readonly remove: boolean;
}

const measureTimeoutMs = 60_000;

/**
 * What forkd keeps and nobody needs: leaks, images in memory, stopped downloads. What some process
 * has open, mapped or as its directory stays, and so does what was used a moment ago.
 */
export async function cleanUp(options: CleanupOptions): Promise<CleanupItem[]> {
  const { paths, tmpDir, remove, nowMs } = options;
  const leaks = await leakItems(paths, remove);
  const places = await Promise.all([...placesOf(paths), upstreamPlace(tmpDir)].map(located));
  const rootfsDir = await resolved(paths.rootfsDir);
  const held = await pathsHeldUnder([...places.map(({ dir }) => dir), rootfsDir]);
  const found: CleanupItem[] = [];
  for (const place of places) found.push(...(await itemsOf({ place, held, nowMs })));
  if (options.images) {
    found.push(...(await unusedRootImages({ paths: { ...paths, rootfsDir }, held, nowMs })));
  }
  const known = new Set(leaks.map(({ what }) => what));
  const rest = found.filter(({ what }) => !known.has(what));
  return [
    ...leaks,
    ...(remove ? await Promise.all(rest.map((item) => removeItem(item, nowMs))) : rest),
  ];
}

/** The kernel names files by where they really are. */
async function resolved(dir: string): Promise<string> {
  return await realpath(dir).catch(() => dir);
}

async function located(place: Place): Promise<Place> {
  return { ...place, dir: await resolved(place.dir) };
}

/** The finders of `forkd leaks`, with what each takes. */
async function leakItems(paths: DataPaths, remove: boolean): Promise<CleanupItem[]> {
  const found = await listLeaks(paths);
  const sizes = new Map<string, number>();
  for (const { what } of found) sizes.set(what, await bytesOf(what));
  const reports = remove && found.length > 0 ? await fixLeaks(paths) : found;
  return reports.map(({ what, why, fixed, problem }) => {
    const bytes = sizes.get(what) ?? 0;
    return { kind: "leak", what, why, bytes, keep: null, removed: fixed !== null, problem };
  });
}

interface Look {
  readonly place: Place;
  /** What some process holds. */
  readonly held: ReadonlySet<string>;
  readonly nowMs: number;
}

async function itemsOf(look: Look): Promise<CleanupItem[]> {
  const { dir, names: fitting } = look.place;
  const names = await readdir(dir).catch(() => []);
  const paths = names.filter((name) => fitting.test(name)).map((name) => join(dir, name));
  const items = await Promise.all(paths.sort().map((path) => itemOf(look, path)));
  return items.filter((item) => item !== undefined);
}

/** Undefined for what is gone meanwhile, is another user's, or a link to somewhere else. */
async function itemOf(
  { place, held, nowMs }: Look,
  what: string,
): Promise<CleanupItem | undefined> {
  const found = await lstat(what).catch(() => undefined);
  if (found === undefined || found.isSymbolicLink()) return undefined;
  if (found.uid !== process.geteuid?.()) return undefined;
  const { kind, why, graceMs } = place;
  const recent = nowMs - found.mtimeMs < graceMs ? "it was used a moment ago" : null;
  const keep = place.keep ?? (isHeld(what, held) ? "a process uses it" : recent);
  return { kind, what, why, bytes: await bytesOf(what), keep, removed: false, problem: null };
}

function isHeld(path: string, held: ReadonlySet<string>): boolean {
  return [...held].some((other) => other === path || other.startsWith(`${path}/`));
}

/** Zero for what is no file. */
async function bytesOf(path: string): Promise<number> {
  const argv = ["du", "-s", "-B1", "--one-file-system", "--", path];
  const said = await run(argv, { timeoutMs: measureTimeoutMs }).catch(() => undefined);
  return Number(/^\d+/.exec(said?.stdout ?? "")?.[0] ?? 0);
}

async function removeItem(item: CleanupItem, nowMs: number): Promise<CleanupItem> {
  if (item.keep !== null) return item;
  // Whoever takes an image marks it first.
  const found = await lstat(item.what).catch(() => undefined);
  if (found !== undefined && found.mtimeMs > nowMs) return { ...item, keep: "it is used just now" };
  try {
    if (item.kind === "root_image") await removeRootImage(item.what);
    else await removeTree(item.what);
    return { ...item, removed: true };
  } catch (error) {
    return { ...item, problem: toForkdError(error) };
  }
}
