import type { SandboxInfo } from "@forkd/api";
import type { ForkDeps } from "./deps.ts";
import { releaseAll } from "./release.ts";
import type { Resource } from "./resources.ts";
import { readVmmLog } from "./vmm-log.ts";
import { removeWorkDir } from "./work-dir.ts";

/** Who gives back: an owner, or whoever looks for leaks. */
export type GiveBackDeps = Pick<ForkDeps, "owner" | "history" | "log" | "onStep">;

export interface Remains {
  readonly workDir: string;
  readonly resources: readonly Resource[];
  /** What is remembered of it, with its end; null remembers nothing. */
  readonly info: SandboxInfo | null;
}

/**
 * Gives back what a sandbox without its VMM still holds. Each part is right when it was done
 * before, so whoever is cut off is followed by somebody who does it again. Throws the first
 * failure, and does not stop at it.
 */
export async function giveBack(deps: GiveBackDeps, remains: Remains): Promise<void> {
  const { workDir, resources, info } = remains;
  const failures: unknown[] = [];
  const keep = (error: unknown): void => void failures.push(error);
  await releaseAll(resources).catch(keep);
  deps.onStep("resources_released");
  if (info !== null) await remember(deps, info, workDir);
  deps.onStep("end_recorded");
  // What could not be given back is in the record: it stays for the next owner.
  if (failures.length === 0) await removeWorkDir(workDir, deps.owner, deps.onStep);
  if (failures.length > 0) throw failures[0];
}

/** A full disk must not keep what would make room. */
async function remember(
  { history, log }: GiveBackDeps,
  info: SandboxInfo,
  workDir: string,
): Promise<void> {
  try {
    await history?.add(info, (await readVmmLog(workDir)) ?? "");
  } catch (error) {
    log.error("the end of a sandbox could not be recorded", { id: info.id, cause: error });
  }
}
