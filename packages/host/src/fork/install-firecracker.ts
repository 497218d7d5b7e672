import { createReadStream } from "node:fs";
import { chmod, type FileHandle, mkdir, open, rename } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { ForkdError, toForkdError } from "@forkd/api";
import { formatVersion, parseVersion, refusalOf } from "../engine/firecracker/version.ts";
import { withStaging } from "../image/staging.ts";
import { isErrno } from "../lib/atomic.ts";
import { run } from "../lib/exec.ts";
import { sha256File } from "../lib/hash.ts";
import { readTar } from "../lib/tar-read.ts";
import {
  type FirecrackerPaths,
  type FirecrackerRecord,
  firecrackerFiles,
  firecrackerId,
  type InstalledFirecracker,
  publishFirecracker,
} from "../store/firecracker.ts";

/** A release's archive is some ten MiB, with debug symbols some hundred. */
const sourceBytesMax = 512 * 1024 * 1024;
/** One program; upstream's are some MiB. */
const programBytesMax = 128 * 1024 * 1024;
const downloadTimeoutMs = 10 * 60_000;
const versionTimeoutMs = 10_000;

const programs = ["firecracker", "jailer"] as const;
type Program = (typeof programs)[number];

/** `firecracker`, or as releases name it: `firecracker-v1.16.1-x86_64`. */
const memberPattern = /^(firecracker|jailer)(-v\d+\.\d+\.\d+-x86_64)?$/;

/** A file or an http address, and what the operator knows that it hashes to. */
export interface NamedSource {
  readonly from: string;
  /** 64 hex digits. */
  readonly sha256: string;
}

export interface InstallFirecrackerOptions {
  readonly paths: FirecrackerPaths;
  /** A release's archive, or the program itself. */
  readonly source: NamedSource;
  /** The jailer, when the source is the program itself. */
  readonly jailer: NamedSource | null;
  readonly progress: (message: string) => void;
  readonly signal?: AbortSignal;
}

export interface FirecrackerInstall extends InstalledFirecracker {
  readonly id: string;
  readonly version: string;
}

/**
 * Puts a release of Firecracker into the store and makes it the one that is used. What is not as it
 * was named is never run.
 *
 * Throws image_not_found, image_invalid (hash, archive, program), registry_unreachable,
 * engine_unavailable for a release with known faults; the one before stays then.
 */
export async function installFirecracker(
  options: InstallFirecrackerOptions,
): Promise<FirecrackerInstall> {
  const { paths, progress } = options;
  const staging = firecrackerFiles.staging(paths);
  return await withStaging(staging, options.signal, async (dir, signal) => {
    const release = join(dir, "release");
    await mkdir(release, { mode: 0o755 });
    const fetched = await fetchSource(options.source, join(dir, "source"), { progress, signal });
    if (await isProgram(fetched)) await rename(fetched, firecrackerFiles.firecracker(release));
    else await unpack(options.source.from, fetched, release);
    if (options.jailer !== null) {
      const loose = await fetchSource(options.jailer, join(dir, "jailer"), { progress, signal });
      await rename(loose, firecrackerFiles.jailer(release));
    }
    const record = await inspect(options.source, release);
    const installed = await publishFirecracker(paths, release, record);
    return { ...installed, id: firecrackerId(record), version: record.version };
  });
}

interface FetchOptions {
  readonly progress: (message: string) => void;
  readonly signal: AbortSignal;
}

/** A copy of the source, which is what was hashed and will be used. */
async function fetchSource(
  { from, sha256 }: NamedSource,
  path: string,
  { progress, signal }: FetchOptions,
): Promise<string> {
  const isUrl = /^https?:\/\//.test(from);
  if (isUrl) progress(`downloading ${from}`);
  const stream = isUrl ? await download(from, signal) : await openFile(resolve(from));
  await copyBounded(stream, path, from);
  const found = await sha256File(path);
  if (found === sha256) return path;
  const message = `${from} hashes to ${found}, not to ${sha256}`;
  throw new ForkdError("image_invalid", message, {
    hint: "compare both with the hash that the release's page names",
  });
}

async function openFile(path: string): Promise<Readable> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    if (!isErrno(error, "ENOENT")) throw error;
    throw new ForkdError("image_not_found", `there is no file ${path}`, { hint: "check the path" });
  }
  if ((await handle.stat()).isFile()) return handle.createReadStream();
  await handle.close();
  throw invalid(`${path} is no file`);
}

async function download(url: string, signal: AbortSignal): Promise<Readable> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(downloadTimeoutMs)]);
  try {
    const answer = await fetch(url, { signal: limit });
    if (answer.ok && answer.body !== null) return Readable.fromWeb(answer.body);
    throw new Error(`it answered ${answer.status}`);
  } catch (error) {
    signal.throwIfAborted();
    const why = error instanceof Error ? error.message : String(error);
    throw new ForkdError("registry_unreachable", `${url} cannot be fetched: ${why}`, {
      cause: error,
    });
  }
}

async function copyBounded(stream: Readable, path: string, from: string): Promise<void> {
  await using target = await open(path, "wx", 0o600);
  let bytes = 0;
  for await (const chunk of stream) {
    bytes += chunk.length;
    if (bytes > sourceBytesMax) {
      throw invalid(`${from} is over ${sourceBytesMax} bytes`);
    }
    await target.writeFile(chunk);
  }
}

/** The head of an ELF file for x86_64 (System V ABI): magic, 64 bits, little-endian, machine 62. */
async function isProgram(path: string): Promise<boolean> {
  await using handle = await open(path, "r");
  const head = Buffer.alloc(20);
  const { bytesRead } = await handle.read(head, 0, head.length, 0);
  const magic = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
  return bytesRead === 20 && head.subarray(0, 6).equals(magic) && head.readUInt16LE(18) === 62;
}

/** Takes the two programs out of an archive, under names of ours, and nothing else. */
async function unpack(from: string, path: string, release: string): Promise<void> {
  const raw = createReadStream(path);
  const stream = (await isGzip(path)) ? raw.pipe(createGunzip()) : raw;
  const targets = new Map<Program, FileHandle>();
  try {
    await readTar(stream, ({ name, size }) => {
      const program = programOf(name);
      if (program === undefined) return null;
      if (targets.has(program) || size > programBytesMax) {
        throw new Error(`${program} is there twice, or is over ${programBytesMax} bytes`);
      }
      return writer(join(release, program), (handle) => targets.set(program, handle));
    });
  } catch (error) {
    const { code, message } = toForkdError(error);
    if (code === "disk_full") throw error;
    throw invalid(`${from} is no archive of a release: ${message}`, error);
  } finally {
    raw.destroy();
    for (const handle of targets.values()) await handle.close();
  }
  if (targets.has("firecracker")) return;
  throw invalid(`${from} holds no program firecracker for x86_64`);
}

function programOf(name: string): Program | undefined {
  const base = memberPattern.exec(basename(name))?.[1];
  return programs.find((program) => program === base);
}

function writer(
  path: string,
  keep: (handle: FileHandle) => void,
): (chunk: Buffer) => Promise<void> {
  let opened: Promise<FileHandle> | undefined;
  return async (chunk) => {
    opened ??= open(path, "wx", 0o600).then((handle) => {
      keep(handle);
      return handle;
    });
    await (await opened).writeFile(chunk);
  };
}

async function isGzip(path: string): Promise<boolean> {
  await using handle = await open(path, "r");
  const head = Buffer.alloc(2);
  await handle.read(head, 0, 2, 0);
  return head.equals(Buffer.from([0x1f, 0x8b]));
}

/** What the programs say of themselves, which must agree. */
async function inspect(source: NamedSource, release: string): Promise<FirecrackerRecord> {
  const firecracker = await inspectProgram(release, "firecracker");
  const jailer = await inspectProgram(release, "jailer").catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return null;
    throw error;
  });
  if (jailer !== null && jailer.version !== firecracker.version) {
    const message = `the jailer is ${jailer.version}, Firecracker is ${firecracker.version}`;
    throw new ForkdError("image_invalid", message, { hint: "take both from one release" });
  }
  const refusal = refusalOf(parseVersion(firecracker.version));
  if (refusal !== null) {
    throw new ForkdError("engine_unavailable", refusal, { hint: "install a newer release" });
  }
  return {
    format: 1,
    version: firecracker.version,
    installed_at_unix: Math.floor(Date.now() / 1000),
    origin: source.from,
    origin_sha256: source.sha256,
    sha256: { firecracker: firecracker.sha256, jailer: jailer?.sha256 ?? null },
  };
}

async function inspectProgram(
  release: string,
  program: Program,
): Promise<{ readonly version: string; readonly sha256: string }> {
  const path = join(release, program);
  if (!(await isProgram(path))) {
    throw invalid(`${program} is no program for x86_64`);
  }
  await chmod(path, 0o755);
  const sha256 = await sha256File(path);
  try {
    const { stdout } = await run([path, "--version"], { timeoutMs: versionTimeoutMs });
    return { version: formatVersion(parseVersion(stdout)), sha256 };
  } catch (error) {
    throw invalid(`${program} does not say its version: ${toForkdError(error).message}`, error);
  }
}

function invalid(message: string, cause?: unknown): ForkdError {
  return new ForkdError("image_invalid", message, {
    hint: "give the archive of an official release for x86_64, or its programs",
    cause,
  });
}
