import { open } from "node:fs/promises";

/** Makes the file of a parent's RAM, all of it a hole. Throws EEXIST. */
export async function createRamFile(path: string, mib: number): Promise<void> {
  await using handle = await open(path, "wx", 0o600);
  await handle.truncate(mib * 1024 * 1024);
}
