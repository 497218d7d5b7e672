import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import type { DataPaths } from "../config/data-paths.ts";
import { replaceFile } from "../lib/atomic.ts";
import { fileIdentity, undefinedIfMissing } from "./files.ts";
import type { PageWorkers } from "./pages.ts";

/** Files that are remembered; the oldest go. */
const filesMax = 256;
const recordBytesMax = 256 * 1024;

const recordSchema = z.object({
  format: z.literal(1),
  /** By the hash of the bytes: the identity that the file had when they were right. */
  files: z.array(z.tuple([z.string(), z.string()])).max(filesMax),
});

/**
 * Throws snapshot_corrupt when a file whose name is its hash is not what the name says. Its bytes
 * are read when they were not before, or when the file is not the one that it was.
 */
export async function requireNamed(
  { paths, pages }: { readonly paths: DataPaths; readonly pages: PageWorkers },
  path: string,
  sha256: string,
): Promise<void> {
  const identity = await fileIdentity(path);
  const known = await readKnown(paths);
  if (identity !== undefined && known.get(sha256) === identity) return;
  if ((await pages.run("hash", { file: path })) !== sha256) {
    throw new ForkdError("snapshot_corrupt", `${path} is not what its name says`, {
      hint: "build the image, or install the kernel, again",
    });
  }
  if (identity !== undefined) await remember(paths, sha256, identity);
}

const recordFile = ({ cacheDir }: DataPaths): string => join(cacheDir, "verified-files.json");

async function readKnown(paths: DataPaths): Promise<Map<string, string>> {
  const text = await readFile(recordFile(paths), "utf8").catch(undefinedIfMissing);
  if (text === undefined || text.length > recordBytesMax) return new Map();
  try {
    return new Map(recordSchema.parse(JSON.parse(text)).files);
  } catch {
    // Without a record that can be read the bytes are hashed, which is always right.
    return new Map();
  }
}

/** Two at a time may lose one entry, which costs one more reading. */
async function remember(paths: DataPaths, sha256: string, identity: string): Promise<void> {
  const known = await readKnown(paths);
  known.delete(sha256);
  known.set(sha256, identity);
  const files = [...known].slice(-filesMax);
  await mkdir(paths.cacheDir, { recursive: true, mode: 0o700 });
  await replaceFile(recordFile(paths), JSON.stringify({ format: 1, files }));
}
