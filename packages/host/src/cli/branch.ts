import {
  type BranchMode,
  limits,
  parseSandboxId,
  parseSnapshotTag,
  type SandboxId,
  type SnapshotInfo,
  type SnapshotTag,
} from "@forkd/api";
import { type Command, Option } from "commander";
import type { Context } from "./context.ts";
import { openClient } from "./daemon.ts";
import { exitCodes } from "./exit.ts";
import { type Flags, usage } from "./flags.ts";

/** A full branch of the largest guest onto a slow disk. */
const branchTimeoutMs = 600_000;

export interface BranchOrder {
  readonly id: SandboxId;
  /** Null lets the daemon choose one. */
  readonly tag: SnapshotTag | null;
  readonly mode: BranchMode;
  readonly wait: boolean;
  readonly maxPauseMs: number | null;
}

/** The options that say how to branch, for each verb that does. */
export function addBranchOptions(command: Command): Command {
  return command
    .addOption(new Option("--diff", "keep only what changed since the fork").conflicts("live"))
    .addOption(new Option("--live", "the same, most of it copied while the guest runs"))
    .addOption(new Option("--no-wait", "return before it is written; needs --live"))
    .addOption(
      new Option("--max-pause-ms <ms>", "give up rather than stop the guest for longer").argParser(
        String,
      ),
    );
}

/** Throws bad_request for options that contradict each other. */
export function parseBranch(flags: Flags, id: string): BranchOrder {
  const mode = flags.on("live") ? "live" : flags.on("diff") ? "diff" : "full";
  const wait = flags.on("wait");
  if (!wait && mode !== "live") throw usage("--no-wait needs --live");
  const tag = flags.text("tag");
  return {
    id: parseSandboxId(id),
    tag: tag === undefined ? null : parseSnapshotTag(tag),
    mode,
    wait,
    maxPauseMs:
      flags.optionalInteger("maxPauseMs", { min: 1, max: limits.branchPauseMaxMs }) ?? null,
  };
}

/** Asks the daemon for the branch and prints what it made. */
export async function runBranch(context: Context, order: BranchOrder): Promise<number> {
  const { settings, output, signal } = context;
  const client = await openClient(settings);
  const info = await client.branchSandbox({
    params: { id: order.id },
    body: { tag: order.tag, mode: order.mode, wait: order.wait, max_pause_ms: order.maxPauseMs },
    timeoutMs: branchTimeoutMs,
    signal,
  });
  if (info.warning !== undefined) output.warn(info.warning);
  if (output.json) output.data(info);
  else for (const line of branchLines(info)) output.line(line);
  return exitCodes.ok;
}

/** Upstream's three lines. */
function branchLines(info: SnapshotInfo): string[] {
  const { tag, dir, branched_from: from = "" } = info;
  return [`tag: ${tag}`, `dir: ${dir}`, `branched_from: ${from}`];
}
