import { parseSnapshotTag, type SnapshotInfoDetail, type SnapshotTag } from "@forkd/api";
import type { Context } from "../context.ts";
import { findDaemonWith } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { withService } from "../local.ts";
import type { Column } from "../table.ts";
import { defineVerb } from "../verb.ts";

type Row = readonly [name: string, value: string];

const columns: readonly Column<Row>[] = [
  { title: "FIELD", cell: ([name]) => name },
  { title: "VALUE", cell: ([, value]) => value },
];

const mib = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
const orNone = (names: readonly string[], between: string): string =>
  names.length === 0 ? "none" : names.join(between);

function rowsOf(info: SnapshotInfoDetail): Row[] {
  return [
    ["tag", info.tag],
    ["dir", info.dir],
    ["chain depth", String(info.chain_depth)],
    ["parent_tag", info.parent_tag ?? "none, base"],
    ["parent_content_hash", info.parent_content_hash ?? "none"],
    ["memory", mib(info.memory_logical_bytes)],
    ["memory in this snapshot", mib(info.memory_data_bytes)],
    ["memory on disk", mib(info.memory_physical_bytes)],
    ["vmstate", `${(info.vmstate_bytes / 1024).toFixed(1)} KiB`],
    ["ancestors", orNone(info.ancestors, " → ")],
    ["dependents", orNone(info.dependents, ", ")],
  ];
}

/** From the daemon when it has the tag, else from the data directory. */
async function findInfo(context: Context, tag: SnapshotTag): Promise<SnapshotInfoDetail> {
  const daemon = await findDaemonWith(context, tag);
  if (daemon === undefined) return withService(context, (service) => service.snapshotInfo(tag));
  return daemon.client.getSnapshotInfo({ params: { tag }, signal: context.signal });
}

export const snapshotInfoVerb = defineVerb({
  describe: (command) =>
    command
      .name("snapshot-info")
      .description("show one snapshot: its chain, what was made from it, what it takes on disk")
      .argument("<tag>", "the snapshot's tag"),
  parse: ({ args, rest }) => {
    const [tag, ...more] = [...args, ...rest];
    if (tag === undefined || more.length > 0) throw usage("name one tag");
    return { tag: parseSnapshotTag(tag) };
  },
  run: async (context, { tag }) => {
    const info = await findInfo(context, tag);
    if (context.output.json) context.output.data(info);
    else context.output.table(columns, rowsOf(info));
    return exitCodes.ok;
  },
});
