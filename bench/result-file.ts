import { mkdir, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/** Keeps a bench's result as JSON; makes the directory. */
export async function writeResult(path: string, result: object): Promise<void> {
  const file = resolve(path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, `${JSON.stringify(result, null, 2)}\n`);
}
