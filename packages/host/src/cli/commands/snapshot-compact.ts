import { parseSnapshotTag, type SnapshotInfo, type SnapshotTag } from "@forkd/api";
import type { Context } from "../context.ts";
import { findDaemonWith } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { withService } from "../local.ts";
import { defineVerb } from "../verb.ts";

/** The largest RAM onto a slow disk. */
const compactTimeoutMs = 600_000;

interface CompactOrder {
  readonly from: SnapshotTag;
  readonly to: SnapshotTag;
}

/** By the daemon when it has the tag: it knows what else is being written. */
async function compact(context: Context, { from, to }: CompactOrder): Promise<SnapshotInfo> {
  const daemon = await findDaemonWith(context, from);
  if (daemon === undefined) {
    return withService(context, (service) => service.compactSnapshot(from, to));
  }
  return daemon.client.compactSnapshot({
    params: { tag: from },
    body: { to },
    timeoutMs: compactTimeoutMs,
    signal: context.signal,
  });
}

export const snapshotCompactVerb = defineVerb<CompactOrder>({
  describe: (command) =>
    command
      .name("snapshot-compact")
      .description("copy a snapshot and its ancestors into one new snapshot that needs no other")
      .requiredOption("--from <tag>", "the snapshot to copy")
      .requiredOption("--to <tag>", "the new snapshot"),
  parse: ({ flags }) => {
    const from = parseSnapshotTag(flags.required("from"));
    const to = parseSnapshotTag(flags.required("to"));
    if (from === to) throw usage("--from and --to are the same tag");
    return { from, to };
  },
  run: async (context, order) => {
    const { output } = context;
    const info = await compact(context, order);
    if (output.json) {
      output.data(info);
      return exitCodes.ok;
    }
    output.line(`tag: ${info.tag}`);
    output.line(`dir: ${info.dir}`);
    output.line(`branched_from: ${info.branched_from ?? ""}`);
    output.hint(`verify it with: forkd snapshot-info ${info.tag}`);
    return exitCodes.ok;
  },
});
