/**
 * `npm run test:firecracker -- --binary PATH`: the engine's tests with a real Firecracker, which no
 * package archive has. docs/firecracker.md says what they need of the host.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { failUsage, readArgs } from "./runner/args.ts";
import { runChild } from "./runner/child.ts";

const deadlineMs = 15 * 60_000;
const repoRoot = join(import.meta.dirname, "..");

const usage = "npm run test:firecracker -- --binary PATH of firecracker";
const { values } = readArgs(usage, { options: { binary: { type: "string" } } });
if (values.binary === undefined) failUsage(usage, "which Firecracker?");
const binary = resolve(values.binary);
if (!existsSync(binary)) failUsage(usage, `there is no ${binary}`);
const run = [join(repoRoot, "scripts/node"), join(repoRoot, "test/run.ts")];
const end = await runChild([...run, "conformance", "--file", "firecracker"], {
  cwd: repoRoot,
  env: { ...process.env, FORKD_TEST_FIRECRACKER: binary },
  deadlineMs,
  onStdoutLine: (line) => console.log(line),
  onStderrLine: (line) => console.error(line),
});
process.exit(end.code ?? 1);
