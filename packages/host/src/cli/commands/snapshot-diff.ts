import {
  ForkdError,
  limits,
  parseSnapshotTag,
  type SnapshotInfo,
  type SnapshotTag,
  toForkdError,
} from "@forkd/api";
import type { Client } from "@forkd/sdk";

import type { Context } from "../context.ts";
import { killTimeoutMs, openClient, spawnTimeoutMs } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { defineVerb } from "../verb.ts";
import { splitWords } from "../words.ts";

interface DiffOrder {
  readonly from: SnapshotTag;
  readonly tag: SnapshotTag;
  readonly argv: readonly string[];
  readonly timeoutSecs: number;
}

/** For the request's way through the daemon, above the command's own time. */
const graceMs = 10_000;
const execTimeoutDefaultSecs = 600;
const branchTimeoutMs = 600_000;

/** Forks one child, changes it with a command, and keeps the difference. The child always ends. */
async function makeDiff(context: Context, client: Client, order: DiffOrder): Promise<SnapshotInfo> {
  const { output, signal } = context;
  const [child] = await client.createSandboxes({
    body: { snapshot_tag: order.from, n: 1 },
    timeoutMs: spawnTimeoutMs,
  });
  if (child === undefined) throw new ForkdError("internal", "the daemon answered without a child");
  const params = { id: child.id };
  try {
    signal.throwIfAborted();
    output.progress(`forked ${child.id} of ${order.from}; running the command`);
    const result = await client.execSandbox({
      params,
      body: { args: [...order.argv], timeout_secs: order.timeoutSecs },
      timeoutMs: order.timeoutSecs * 1000 + graceMs,
      signal,
    });
    requireSuccess(order, result);
    output.progress("branching");
    const body = { tag: order.tag, mode: "diff", parent_tag: order.from } as const;
    return await client.branchSandbox({ params, body, timeoutMs: branchTimeoutMs, signal });
  } finally {
    await endChild(client, child.id);
  }
}

interface Result {
  readonly exit_code: number;
  readonly timed_out: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

function requireSuccess({ timeoutSecs }: DiffOrder, result: Result): void {
  if (result.exit_code === 0 && !result.timed_out) return;
  const how = result.timed_out
    ? `was killed after ${timeoutSecs} s`
    : `ended with ${result.exit_code}`;
  const words = [result.stdout, result.stderr].map((text) => text.trim()).filter(Boolean);
  throw new ForkdError("exec_failed", [`the command ${how}`, ...words].join("\n"), {
    hint: "nothing was kept; try the command with forkd exec in a sandbox of the same snapshot",
  });
}

async function endChild(client: Client, id: string): Promise<void> {
  try {
    await client.deleteSandbox({ params: { id }, timeoutMs: killTimeoutMs });
  } catch (error) {
    if (toForkdError(error).code !== "sandbox_not_found") throw error;
  }
}

function diffLines(info: SnapshotInfo, from: string): string[] {
  return [
    `tag: ${info.tag}`,
    `dir: ${info.dir}`,
    `parent_tag: ${from}`,
    `pause_ms: ${info.pause_ms ?? ""}`,
    `diff_physical_bytes: ${info.diff_physical_bytes ?? ""}`,
  ];
}

export const snapshotDiffVerb = defineVerb<DiffOrder>({
  describe: (command) =>
    command
      .name("snapshot-diff")
      .description("run a command in a fork of a snapshot and keep what it changed")
      .requiredOption("--from <tag>", "the snapshot to start from")
      .requiredOption("--tag <tag>", "the new snapshot's name")
      .requiredOption("--exec <command>", "words as a shell splits them, without its expansions")
      .option(
        "--exec-timeout-secs <secs>",
        "kill the command after this time",
        String(execTimeoutDefaultSecs),
      ),
  parse: ({ flags }) => {
    const argv = splitWords(flags.required("exec"));
    if (argv.length === 0) throw usage("--exec needs a command");
    return {
      from: parseSnapshotTag(flags.required("from")),
      tag: parseSnapshotTag(flags.required("tag")),
      argv,
      timeoutSecs: flags.integer("execTimeoutSecs", { min: 1, max: limits.execTimeoutMaxSecs }),
    };
  },
  run: async (context, order) => {
    const client = await openClient(context.settings);
    const info = await makeDiff(context, client, order);
    if (info.warning !== undefined) context.output.warn(info.warning);
    if (context.output.json) context.output.data(info);
    else for (const line of diffLines(info, order.from)) context.output.line(line);
    return exitCodes.ok;
  },
});
