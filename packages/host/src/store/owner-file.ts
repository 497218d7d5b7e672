import { readFile } from "node:fs/promises";
import { z } from "zod";
import { replaceFile } from "../lib/atomic.ts";
import { fileIdentity } from "./files.ts";

const ownerSchema = z.object({ data_dir: z.string(), inode: z.string() });

/**
 * Says beside what is elsewhere which data directory it belongs to, so that a stranger can tell
 * that this is gone.
 */
export async function writeOwner(path: string, dataDir: string): Promise<void> {
  const owner = { data_dir: dataDir, inode: await inodeOf(dataDir) };
  await replaceFile(path, JSON.stringify(owner));
}

/** False when the file says nothing: whoever writes it may be about to. */
export async function isOwnerGone(path: string): Promise<boolean> {
  try {
    const owner = ownerSchema.parse(JSON.parse(await readFile(path, "utf8")));
    return (await inodeOf(owner.data_dir)) !== owner.inode;
  } catch {
    return false;
  }
}

async function inodeOf(dir: string): Promise<string> {
  const [device = "", inode = ""] = ((await fileIdentity(dir)) ?? "").split(":");
  return `${device}:${inode}`;
}
