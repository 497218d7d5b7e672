import { readFileSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, toForkdError } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { isErrno } from "../lib/atomic.ts";
import { isAlive, type ProcessIdentity, processesIn } from "../linux/proc.ts";
import { readRecord, type SandboxRecord } from "./record.ts";
import { readOwner, transientState } from "./work-dir.ts";

/**
 * What one directory below `work/` is.
 *
 * - `owned`: its owner lives, and nobody else touches it
 * - `orphan`: its owner is gone; a sandbox when it has a record, else a parent
 * - `leftover`: it was being made or removed, or was torn by a crash of the host
 * - `foreign`: nobody ever claimed it
 * - `damaged`: one of its files cannot be read, so nobody knows what it stands for
 */
export type WorkDirFinding = { readonly dir: string } & (
  | { readonly kind: "owned" | "orphan"; readonly record: SandboxRecord | undefined }
  | { readonly kind: "leftover" | "foreign" }
  | { readonly kind: "damaged"; readonly error: ForkdError }
);

/** Looks at every work directory; changes nothing. */
export async function surveyWorkDirs(paths: DataPaths): Promise<WorkDirFinding[]> {
  const names = await readdir(paths.workDir).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
  const findings = await Promise.all(names.map((name) => survey(paths.workDir, name)));
  return findings.filter((finding) => finding !== undefined);
}

async function survey(workDir: string, name: string): Promise<WorkDirFinding | undefined> {
  const dir = join(workDir, name);
  const transient = transientState(name);
  if (transient === "alive") return { dir, kind: "owned", record: undefined };
  if (transient === "dead") return { dir, kind: "leftover" };
  try {
    const owner = await readOwner(dir);
    if (owner === undefined) return (await exists(dir)) ? { dir, kind: "foreign" } : undefined;
    return await surveyOwned(dir, owner);
  } catch (thrown) {
    const error = toForkdError(thrown);
    if (error.code !== "state_corrupt") throw error;
    if (!(await exists(dir))) return undefined;
    return (await isTorn(dir)) ? { dir, kind: "leftover" } : { dir, kind: "damaged", error };
  }
}

async function surveyOwned(
  dir: string,
  owner: ProcessIdentity,
): Promise<WorkDirFinding | undefined> {
  const alive = isAlive(owner);
  // A living owner is asked nothing: it may be writing just now.
  if (alive) return { dir, kind: "owned", record: await readRecord(dir).catch(() => undefined) };
  const record = await readRecord(dir);
  // It may have been removed, or adopted, since it was listed.
  const now = await readOwner(dir);
  if (now === undefined) return undefined;
  return { dir, kind: isAlive(now) ? "owned" : "orphan", record };
}

async function exists(dir: string): Promise<boolean> {
  try {
    return (await stat(dir)) !== undefined;
  } catch (error) {
    if (isErrno(error, "ENOENT")) return false;
    throw error;
  }
}

/**
 * Records are not synced, so a crash of the host may tear them. One that was last changed before
 * this boot, and in whose directory nothing runs, stands for a VM that is gone with its host.
 */
async function isTorn(dir: string): Promise<boolean> {
  const { ctimeMs } = await stat(dir);
  return ctimeMs < bootTimeMs() && (await processesIn(dir)).length === 0;
}

/** When this boot began, as the host's clock has it now (proc(5), btime). */
function bootTimeMs(): number {
  const seconds = /^btime (\d+)$/m.exec(readFileSync("/proc/stat", "utf8"))?.[1];
  if (seconds !== undefined) return Number(seconds) * 1000;
  throw new ForkdError("internal", "/proc/stat does not say when this host booted");
}
