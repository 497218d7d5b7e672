/** Programs from PyPI, each set of packages in an environment of its own. */
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { runChild } from "../runner/child.ts";
import { repoRoot } from "./baked.ts";
import { missing } from "./capabilities.ts";

const installTimeoutMs = 3 * 60_000;

/**
 * The environment's directory, made once a checkout; else why there is none, for node:test's
 * `skip`. Each package is pinned: `name==version`.
 */
export async function pythonEnv(
  packages: readonly string[],
): Promise<{ readonly dir: string } | { readonly skip: string }> {
  const lacking = missing({ programs: ["python3"], network: true });
  if (lacking !== false) return { skip: lacking };
  const name = `python-${packages.join("-").replaceAll(/[^a-z0-9.-]/g, "-")}`;
  const dir = join(repoRoot, ".cache", name);
  if (!existsSync(dir)) {
    const reason = await install(dir, packages);
    if (reason !== undefined) return { skip: `needs PyPI: ${reason}` };
  }
  return { dir };
}

/** The reason for which it could not be installed. Programs in an environment know its path. */
async function install(dir: string, packages: readonly string[]): Promise<string | undefined> {
  mkdirSync(join(repoRoot, ".cache"), { recursive: true });
  const made = await run(["python3", "-m", "venv", dir]);
  const filled = made ?? (await run([join(dir, "bin/pip"), "install", "--quiet", ...packages]));
  if (filled === undefined) return undefined;
  // What is half made must not be found by the next run.
  const broken = `${dir}.broken`;
  rmSync(broken, { recursive: true, force: true });
  if (existsSync(dir)) renameSync(dir, broken);
  return filled;
}

async function run(argv: readonly string[]): Promise<string | undefined> {
  let last = "";
  const keep = (line: string): void => {
    if (line.trim() !== "") last = line;
  };
  const end = await runChild(argv, {
    cwd: repoRoot,
    env: { ...process.env, PIP_DISABLE_PIP_VERSION_CHECK: "1", PIP_RETRIES: "1" },
    deadlineMs: installTimeoutMs,
    onStdoutLine: keep,
    onStderrLine: keep,
  });
  return end.code === 0 ? undefined : `${argv.slice(0, 3).join(" ")} failed: ${last}`;
}
