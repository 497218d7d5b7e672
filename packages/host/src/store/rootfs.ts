import { chmod, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ForkdError } from "@forkd/api";
import { isErrno, writeFileAtomic } from "../lib/atomic.ts";
import { sha256File } from "../lib/hash.ts";

/** The part of the data paths that this store needs. */
export interface RootfsPaths {
  readonly rootfsDir: string;
}

/** How commands of an image run. Empty texts and lists stand for "not said". */
export interface ImageConfig {
  readonly env: Readonly<Record<string, string>>;
  /** As the image says it: a name, uid, or either with a group behind a colon. */
  readonly user: string;
  readonly workdir: string;
  readonly cmd: readonly string[];
  readonly entrypoint: readonly string[];
}

/** A read-only root image, named by its content. */
export interface RootImage {
  readonly sha256: string;
  readonly path: string;
  /** Logical size; the file is sparse. */
  readonly sizeBytes: number;
  /** What the user asked for when it was made. */
  readonly ref: string;
  readonly config: ImageConfig;
}

const sha256Pattern = /^[0-9a-f]{64}$/;
export const recordBytesMax: number = 1024 * 1024;

function imagePath(paths: RootfsPaths, sha256: string): string {
  return join(paths.rootfsDir, `${sha256}.img`);
}

function recordPath(paths: RootfsPaths, sha256: string): string {
  return join(paths.rootfsDir, `${sha256}.json`);
}

/** Where images are made, on the file system of the store. */
export function rootfsStagingDir(paths: RootfsPaths): string {
  return join(paths.rootfsDir, ".staging");
}

/** All complete images, by hash. */
export async function listRootImages(paths: RootfsPaths): Promise<RootImage[]> {
  const names = await readdir(paths.rootfsDir).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
  const hashes = names.flatMap((name) => (name.endsWith(".img") ? [name.slice(0, -4)] : [])).sort();
  const images = await Promise.all(hashes.map((sha256) => findRootImage(paths, sha256)));
  return images.filter((image) => image !== undefined);
}

/** Undefined when there is none, or its record or its size says that it is not whole. */
export async function findRootImage(
  paths: RootfsPaths,
  sha256: string,
): Promise<RootImage | undefined> {
  if (!sha256Pattern.test(sha256)) return undefined;
  const path = imagePath(paths, sha256);
  try {
    const [text, { size }] = await Promise.all([
      readFile(recordPath(paths, sha256), "utf8"),
      stat(path),
    ]);
    const record = parseRootRecord(text);
    return record?.size_bytes === size
      ? { sha256, path, sizeBytes: size, ref: record.ref, config: record.config }
      : undefined;
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}

/** What `SHA256.json` says of an image; undefined when it is no record that we know. */
export function parseRootRecord(text: string): RootfsRecord | undefined {
  if (text.length > recordBytesMax) return undefined;
  try {
    return parseRecord(JSON.parse(text));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Reads the whole image. Throws snapshot_incomplete when its content is not what its name says. */
export async function verifyRootImage(image: RootImage): Promise<void> {
  const sha256 = await sha256File(image.path);
  if (sha256 === image.sha256) return;
  throw new ForkdError("snapshot_incomplete", `the root image ${image.path} is damaged`, {
    hint: "build it again with: forkd from-image REF --refresh --tag TAG",
  });
}

/** A file that is about to become a root image. */
export interface StagedRootImage {
  /** On the file system of the store; gone after publication. */
  readonly path: string;
  readonly ref: string;
  readonly config: ImageConfig;
}

/**
 * Moves a finished file into the store: read-only, flushed, record first, so that an image without
 * a record never counts. An image of the same content is kept, with the newer record, unless the
 * disk has damaged it since.
 */
export async function publishRootImage(
  paths: RootfsPaths,
  staged: StagedRootImage,
): Promise<RootImage> {
  const sha256 = await sha256File(staged.path);
  const { size } = await stat(staged.path);
  const { ref, config } = staged;
  const record = { format: 1, ref, size_bytes: size, created_at_unix: nowUnix(), config };
  await writeFileAtomic(recordPath(paths, sha256), `${JSON.stringify(record, null, 2)}\n`, {
    mode: 0o644,
  });
  await chmod(staged.path, 0o444);
  await syncPath(staged.path);
  const path = imagePath(paths, sha256);
  if (await holds(path, sha256)) await rm(staged.path);
  else await rename(staged.path, path);
  await syncPath(dirname(path));
  return { sha256, path, sizeBytes: size, ref, config };
}

function nowUnix(): number {
  return Math.floor(Date.now() / 1000);
}

async function holds(path: string, sha256: string): Promise<boolean> {
  try {
    return (await sha256File(path)) === sha256;
  } catch (error) {
    if (isErrno(error, "ENOENT")) return false;
    throw error;
  }
}

async function syncPath(path: string): Promise<void> {
  await using handle = await open(path, "r");
  await handle.sync();
}

/** The file beside an image that says how its commands run. */
export interface RootfsRecord {
  readonly ref: string;
  readonly size_bytes: number;
  readonly config: ImageConfig;
}

/** Undefined for anything that is not a record of a format that we know. */
function parseRecord(value: unknown): RootfsRecord | undefined {
  if (!isObject(value) || value["format"] !== 1) return undefined;
  const { ref, size_bytes, config } = value;
  if (typeof ref !== "string" || typeof size_bytes !== "number") return undefined;
  return isImageConfig(config) ? { ref, size_bytes, config } : undefined;
}

/** Whether a parsed JSON value is an {@link ImageConfig}. */
export function isImageConfig(value: unknown): value is ImageConfig {
  return (
    isObject(value) &&
    isObject(value["env"]) &&
    Object.values(value["env"]).every(isText) &&
    isText(value["user"]) &&
    isText(value["workdir"]) &&
    isTextList(value["cmd"]) &&
    isTextList(value["entrypoint"])
  );
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function isTextList(value: unknown): value is string[] {
  return Array.isArray(value) && value.every(isText);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
