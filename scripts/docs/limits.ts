import { readFileSync } from "node:fs";
import { limits } from "@forkd/api";
import { code, page, table } from "./markdown.ts";

const source = "packages/api/src/limits.ts";
const entryPattern = /\/\*\*(?<doc>(?:[^*]|\*(?!\/))*)\*\/\s+(?<name>\w+):/g;

/** What stands above each limit in its source. */
function readDocs(): ReadonlyMap<string, string> {
  const text = readFileSync(new URL(`../../${source}`, import.meta.url), "utf8");
  const entries = [...text.matchAll(entryPattern)].map(({ groups }): [string, string] => [
    groups?.["name"] ?? "",
    (groups?.["doc"] ?? "").replaceAll(/\s*\*?\s+/g, " ").trim(),
  ]);
  return new Map(entries);
}

const kib = 1024;
const mib = 1024 * kib;

/** The value with the unit that its name ends with, as people read it. */
function readable(name: string, value: number): string {
  if (/Bytes(Max|Min)?$/.test(name)) {
    if (value % mib === 0) return `${value / mib} MiB`;
    return value % kib === 0 ? `${value / kib} KiB` : `${value} bytes`;
  }
  if (name.endsWith("Mib")) return value % kib === 0 ? `${value / kib} GiB` : `${value} MiB`;
  if (name.endsWith("Secs")) return value % 3600 === 0 ? `${value / 3600} h` : `${value} s`;
  if (name.endsWith("Ms")) return `${value / 1000} s`;
  return String(value);
}

/** docs/limits.md: every public bound. Throws when one is not described. */
export function renderLimitDocs(): string {
  const docs = readDocs();
  const rows = Object.entries(limits).map(([name, value]) => {
    const doc = docs.get(name);
    if (doc === undefined) throw new Error(`${source}: ${name} has no description`);
    return [code(name), readable(name, value), doc];
  });
  return page("Limits", source, [
    "Every bound that a user can meet. What is over one is refused with a code of " +
      "[errors.md](errors.md), or cut and flagged where the description says so.",
    table(["Limit", "Value", "What it bounds"], rows),
  ]);
}
