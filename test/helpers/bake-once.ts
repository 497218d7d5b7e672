/**
 * `bake-once.ts KIND TAG`: bakes the shared snapshot through the command line, as a user would, if
 * it is not there. Started by baked.ts, which holds the lock. FORKD_DATA_DIR is set.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { runChild } from "../runner/child.ts";
import { bakedImage, repoRoot, testDataDir } from "./baked.ts";

const [kind = "", tag = ""] = process.argv.slice(2);
const warm: Readonly<Record<string, readonly string[]>> = {
  python: ["--warm", "python", "--import", "numpy"],
  node: ["--warm", "node"],
  scratch: ["--warm", "python", "--import", "numpy", "--scratch-mib", "1024"],
  large: ["--warm", "python", "--scratch-mib", "2048"],
};
const stepTimeoutMs = 8 * 60_000;

async function forkd(...args: readonly string[]): Promise<string[]> {
  const lines: string[] = [];
  console.log(`forkd ${args.join(" ")}`);
  const end = await runChild([join(repoRoot, "bin/forkd"), ...args], {
    cwd: repoRoot,
    env: process.env,
    deadlineMs: stepTimeoutMs,
    onStdoutLine: (line) => lines.push(line),
    onStderrLine: (line) => console.error(line),
  });
  if (end.code !== 0) {
    console.error(lines.join("\n"));
    process.exit(end.code ?? 1);
  }
  return lines;
}

/** Snapshots of this kind that were made of something else. */
function staleTags(): string[] {
  const dir = join(testDataDir, "snapshots");
  if (!existsSync(dir)) return [];
  const ours = new RegExp(`^${kind}-[0-9a-f]{12}$`);
  return readdirSync(dir).filter((name) => ours.test(name) && name !== tag);
}

if (warm[kind] === undefined || tag === "") {
  console.error(`error: usage: bake-once.ts ${Object.keys(warm).join("|")} TAG`);
  process.exit(2);
}
if (!existsSync(join(testDataDir, "snapshots", tag, "snapshot.json"))) {
  for (const stale of staleTags()) await forkd("rmi", stale);
  const kernels = join(testDataDir, "kernels");
  const installed = existsSync(kernels) && readdirSync(kernels).some((name) => name[0] !== ".");
  if (!installed) await forkd("kernel", "install");
  await forkd("from-image", ...bakedImage, "--tag", tag, ...(warm[kind] ?? []));
}
