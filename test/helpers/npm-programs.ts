/** Programs that npm carries as plain files, for tests only: no user installs them with forkd. */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { runChild } from "../runner/child.ts";
import { repoRoot } from "./baked.ts";
import { missing } from "./capabilities.ts";

/** Each has about 100 MiB. With one try that fails a test file stays within its time. */
const installTimeoutMs = 3 * 60_000;
/** Why the registry gave nothing: asked once, each try may take all of its time. */
let unreachable: string | undefined;

/** A package of the registry with a program in it, for this kind of host. */
export interface NpmProgram {
  /** `name@version`, pinned. */
  readonly spec: string;
  /** The program's place in the package. */
  readonly path: string;
}

/**
 * The program's path, installed once a checkout, without running any script of the package; else
 * why there is none, for node:test's `skip`.
 */
export async function npmProgram({
  spec,
  path,
}: NpmProgram): Promise<{ readonly program: string } | { readonly skip: string }> {
  const lacking = missing({ programs: ["npm"], network: true });
  if (lacking !== false) return { skip: lacking };
  const cache = join(repoRoot, ".cache");
  const dir = join(cache, `npm-${spec.replaceAll(/[^a-z0-9.-]/g, "-")}`);
  if (!existsSync(dir)) {
    if (unreachable !== undefined) return { skip: unreachable };
    mkdirSync(cache, { recursive: true });
    const draft = mkdtempSync(`${dir}.`);
    const reason = await install(draft, spec);
    if (reason === undefined && !existsSync(dir)) renameSync(draft, dir);
    rmSync(draft, { recursive: true, force: true });
    if (reason !== undefined) {
      unreachable = `needs the npm registry: ${reason}`;
      return { skip: unreachable };
    }
  }
  const name = spec.slice(0, spec.lastIndexOf("@"));
  return { program: join(dir, "node_modules", name, path) };
}

/** The reason for which it could not be installed. */
async function install(dir: string, spec: string): Promise<string | undefined> {
  let last = "";
  const keep = (line: string): void => {
    if (line.trim() !== "") last = line;
  };
  const quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"];
  const end = await runChild(["npm", "install", "--prefix", dir, ...quiet, spec], {
    cwd: dir,
    env: process.env,
    deadlineMs: installTimeoutMs,
    onStdoutLine: keep,
    onStderrLine: keep,
  });
  return end.code === 0 ? undefined : `npm install ${spec} failed: ${last}`;
}
