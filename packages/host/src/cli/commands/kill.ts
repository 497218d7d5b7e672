import {
  type ForkdError,
  parseSandboxId,
  parseSnapshotTag,
  type SandboxId,
  type SnapshotTag,
  toForkdError,
} from "@forkd/api";
import type { Client } from "@forkd/sdk";
import { Option } from "commander";
import { mapBounded } from "../children.ts";
import { killTimeoutMs, listTimeoutMs, openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { defineVerb } from "../verb.ts";

type Selection =
  | { readonly ids: readonly SandboxId[] }
  | { readonly all: true }
  | { readonly tag: SnapshotTag };

async function select(client: Client, selection: Selection): Promise<readonly SandboxId[]> {
  if ("ids" in selection) return selection.ids;
  const sandboxes = await client.listSandboxes({ timeoutMs: listTimeoutMs });
  const chosen = sandboxes.filter(
    (sandbox) => "all" in selection || sandbox.snapshot_tag === selection.tag,
  );
  return chosen.map((sandbox) => parseSandboxId(sandbox.id));
}

/** Undefined when the sandbox is gone. */
async function kill(client: Client, id: SandboxId): Promise<ForkdError | undefined> {
  try {
    await client.deleteSandbox({ params: { id }, timeoutMs: killTimeoutMs });
    return undefined;
  } catch (error) {
    return toForkdError(error);
  }
}

export const killVerb = defineVerb({
  describe: (command) =>
    command
      .name("kill")
      .description("end sandboxes of the daemon")
      .argument("[id...]", "the sandboxes' ids")
      .option("--all", "every sandbox")
      .addOption(new Option("--tag <tag>", "every sandbox of this snapshot").conflicts("all")),
  parse: ({ flags, args, rest }): Selection => {
    const ids = [...new Set([...args, ...rest])].map(parseSandboxId);
    const tag = flags.text("tag");
    if (ids.length > 0 && (flags.on("all") || tag !== undefined)) {
      throw usage("name ids, or --all, or --tag, but one of them only");
    }
    if (flags.on("all")) return { all: true };
    if (tag !== undefined) return { tag: parseSnapshotTag(tag) };
    if (ids.length === 0) throw usage("name the sandboxes to kill", "list them with: forkd ls");
    return { ids };
  },
  run: async ({ settings, output }, selection) => {
    const client = await openClient(settings);
    const ids = await select(client, selection);
    if (ids.length === 0) output.progress("no sandbox matches");
    const ends = await mapBounded(ids, async (id) => {
      const failure = await kill(client, id);
      if (!output.json) output.line(failure ? `✗ ${id}  ${failure.message}` : `✓ ${id}`);
      return { id, failure };
    });
    if (output.json) output.data(ends.map(({ id, failure }) => ({ id, killed: !failure })));
    const failure = ends.find((end) => end.failure !== undefined)?.failure;
    if (failure !== undefined) throw failure;
    return exitCodes.ok;
  },
});
