import type { SnapshotInfo } from "@forkd/api";
import type { Context } from "../context.ts";
import { daemonServes, findDaemon } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { formatAge, formatBytes } from "../format.ts";
import { withService } from "../local.ts";
import { statusWord } from "../snapshot-status.ts";
import { type Column, plain } from "../table.ts";
import { defineVerb } from "../verb.ts";

const none = "-";

function columns(nowUnix: number): Column<SnapshotInfo>[] {
  return [
    { title: "TAG", cell: (snapshot) => snapshot.tag },
    { title: "SIZE", align: "right", cell: (snapshot) => sizeOf(snapshot) },
    { title: "MEMORY", align: "right", cell: ({ memory_mib: mib }) => (mib ? `${mib} MiB` : none) },
    { title: "DEPTH", align: "right", cell: ({ chain_depth: d }) => String(d ?? none) },
    { title: "PARENT", cell: (snapshot) => snapshot.parent_tag ?? none },
    { title: "CREATED", cell: (snapshot) => formatAge(snapshot.created_at_unix, nowUnix) },
    { title: "ENGINE", cell: ({ engine, isolation }) => `${engine ?? none}/${isolation ?? none}` },
    { title: "IMAGE", cell: (snapshot) => snapshot.image ?? none },
    { title: "STATUS", cell: (snapshot) => statusWord(snapshot) },
  ];
}

/** Why some of them cannot be forked. */
function warnings(snapshots: readonly SnapshotInfo[]): string[] {
  return snapshots
    .filter(({ bootable, warning }) => !bootable && warning !== undefined)
    .map(({ tag, warning = "" }) => plain(`${tag}: ${warning}`));
}

function sizeOf({ memory_physical_bytes: bytes }: SnapshotInfo): string {
  return bytes === undefined ? none : formatBytes(bytes);
}

/** The daemon's list when it is the one that is meant, else what the data directory holds. */
async function list(context: Context): Promise<readonly SnapshotInfo[]> {
  const daemon = await findDaemon(context);
  const served = daemon?.snapshots.every((item) => daemonServes(context.settings, item));
  if (daemon !== undefined && served && daemon.snapshots.length > 0) return daemon.snapshots;
  return withService(context, (service) => service.listSnapshots());
}

export const imagesVerb = defineVerb({
  describe: (command) =>
    command
      .name("images")
      .description("list the snapshots, newest first; SIZE is what is allocated on the disk"),
  parse: () => ({}),
  run: async (context) => {
    const { output } = context;
    const snapshots = (await list(context)).toSorted(
      (a, b) => b.created_at_unix - a.created_at_unix,
    );
    if (output.json) {
      output.data(snapshots);
      return exitCodes.ok;
    }
    if (snapshots.length === 0) {
      output.progress("no snapshots yet; make one with: forkd from-image debian:bookworm --tag T");
      return exitCodes.ok;
    }
    output.table(columns(Date.now() / 1000), snapshots);
    for (const warning of warnings(snapshots)) output.warn(warning);
    const bytes = snapshots.reduce((sum, item) => sum + (item.memory_physical_bytes ?? 0), 0);
    output.progress(`${snapshots.length} snapshots, ${formatBytes(bytes)}`);
    return exitCodes.ok;
  },
});
