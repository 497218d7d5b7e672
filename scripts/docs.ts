/**
 * Writes the documents that code can write: `scripts/node scripts/docs.ts`. With `--check` it only
 * compares, and fails when one is stale.
 */
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { renderApiDocs } from "./docs/api.ts";
import { renderErrorDocs } from "./docs/errors.ts";
import { renderLimitDocs } from "./docs/limits.ts";

const documents = new Map<string, string>([
  ["docs/api.md", renderApiDocs()],
  ["docs/errors.md", renderErrorDocs()],
  ["docs/limits.md", renderLimitDocs()],
  ...(await cliDocument()),
]);

async function cliDocument(): Promise<readonly [string, string][]> {
  if (!existsSync(pathOf("packages/host/src/cli/docs.ts"))) return [];
  const { renderCliDocs } = await import("@forkd/host/cli/docs.ts");
  return [["docs/cli.md", renderCliDocs()]];
}

function pathOf(name: string): string {
  return fileURLToPath(new URL(`../${name}`, import.meta.url));
}

const stale: string[] = [];
for (const [name, text] of documents) {
  const current = await readFile(pathOf(name), "utf8").catch(() => "");
  if (current !== text) stale.push(name);
}

if (process.argv.includes("--check")) {
  if (stale.length > 0) {
    console.error(`error: ${stale.join(", ")} differ from what the code says`);
    console.error("hint: run: npm run docs");
    process.exitCode = 1;
  }
} else {
  for (const name of stale) {
    await writeFile(pathOf(name), documents.get(name) ?? "");
    console.log(`wrote ${name}`);
  }
}
