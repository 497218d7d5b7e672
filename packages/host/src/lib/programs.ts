import { access, constants } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";

/** Where a shell with this PATH would find a program; undefined when nowhere. */
export async function findOnPath(name: string, path: string): Promise<string | undefined> {
  const dirs = path.split(delimiter).filter(isAbsolute);
  for (const file of dirs.map((dir) => join(dir, name))) {
    const found = await access(file, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return file;
  }
  return undefined;
}
