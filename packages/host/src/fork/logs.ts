import { join } from "node:path";
import { ForkdError, parseSandboxId, type SandboxId, type SandboxInfo } from "@forkd/api";
import type { ForkDeps } from "./deps.ts";
import { followLog } from "./follow-log.ts";
import { endedError } from "./sandbox.ts";
import type { Sandboxes } from "./sandboxes.ts";
import type { FollowOptions } from "./service.ts";
import { lastLines, readVmmLog, readVmmLogEnd } from "./vmm-log.ts";

export interface LogSources {
  readonly deps: Pick<ForkDeps, "paths" | "history">;
  readonly sandboxes: Pick<Sandboxes, "get">;
}

/** See ForkService.sandboxLog. */
export async function sandboxLog(
  { deps, sandboxes }: LogSources,
  id: SandboxId,
  lines?: number,
): Promise<string> {
  await sandboxes.get(id);
  // The log moves from one to the other as the sandbox ends.
  const live = await readVmmLog(join(deps.paths.workDir, id));
  const text = live ?? (await deps.history?.log(id)) ?? nothingOf(await sandboxes.get(id));
  return lines === undefined ? text : lastLines(text, lines);
}

export interface FollowSources extends LogSources {
  readonly sandboxes: Pick<Sandboxes, "get" | "untilEnded" | "untilOpen">;
}

/** See ForkService.followLog. */
export async function* followSandboxLog(
  sources: FollowSources,
  id: SandboxId,
  { lines, signal, silenceMs }: FollowOptions,
): AsyncGenerator<string, void> {
  const { deps, sandboxes } = sources;
  if ((await sandboxes.get(id)).state === "starting") await sandboxes.untilOpen(id);
  const { end } = await sandboxes.get(id);
  const workDir = join(deps.paths.workDir, id);
  const live = end === null ? await readVmmLogEnd(workDir) : undefined;
  if (live === undefined) {
    yield await sandboxLog(sources, id, lines);
    return;
  }
  yield lines === undefined ? live.text : lastLines(live.text, lines);
  const ended = sandboxes.untilEnded(id);
  yield* followLog({ workDir, from: live.sizeBytes, ended, signal, silenceMs });
}

/** A VMM that has not been started yet has no log either. Throws sandbox_ended. */
function nothingOf({ id, end }: SandboxInfo): string {
  if (end === null) return "";
  const { message } = endedError(parseSandboxId(id), end);
  throw new ForkdError("sandbox_ended", `${message}; its VMM had printed nothing`, {
    hint: `see what is known of its end with: forkd inspect ${id}`,
  });
}
