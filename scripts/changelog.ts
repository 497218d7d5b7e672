/**
 * `changelog.ts VERSION`: moves the fragments of changelog/unreleased/ to the top of CHANGELOG.md
 * and into changelog/VERSION/, so that nothing of them is lost.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
const unreleased = join(root, "changelog/unreleased");
const kinds = ["Security", "Added", "Changed", "Fixed", "Removed"];

interface Fragment {
  readonly name: string;
  readonly kind: string;
  readonly text: string;
}

function readFragment(name: string): Fragment {
  const [first = "", ...rest] = readFileSync(join(unreleased, name), "utf8").trimEnd().split("\n");
  const kind = first.split(":", 1)[0] ?? "";
  if (!kinds.includes(kind)) throw new Error(`${name} begins with none of ${kinds.join(", ")}`);
  const body = rest.join("\n").trim();
  const sentence = `* ${first.slice(kind.length + 1).trim()}.`;
  return { name, kind, text: body === "" ? sentence : `${sentence} ${body.replaceAll("\n", " ")}` };
}

function section(kind: string, fragments: readonly Fragment[]): string {
  const texts = fragments.filter((fragment) => fragment.kind === kind).map(({ text }) => text);
  return texts.length === 0 ? "" : `### ${kind}\n\n${texts.join("\n")}\n\n`;
}

function release(version: string): void {
  const fragments = readdirSync(unreleased).sort().map(readFragment);
  const date = new Date().toISOString().slice(0, 10);
  const entry = `## ${version} (${date})\n\n${kinds.map((k) => section(k, fragments)).join("")}`;
  const path = join(root, "CHANGELOG.md");
  const before = readFileSync(path, "utf8");
  const at = before.search(/^## /m);
  const head = at === -1 ? `${before.trimEnd()}\n\n` : before.slice(0, at);
  const tail = at === -1 ? "" : before.slice(at);
  writeFileSync(path, `${head}${entry}${tail}`.replace(/\n+$/, "\n"));
  const target = join(root, "changelog", version);
  mkdirSync(target);
  for (const { name } of fragments) renameSync(join(unreleased, name), join(target, name));
  console.log(`${fragments.length} fragments moved to ${version}`);
}

const version = process.argv[2] ?? "";
if (/^\d+\.\d+\.\d+$/.test(version)) release(version);
else {
  console.error("error: usage: scripts/node scripts/changelog.ts X.Y.Z");
  process.exitCode = 2;
}
