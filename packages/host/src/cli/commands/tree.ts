import type { Lineage, LineageNode } from "@forkd/api";
import type { Context } from "../context.ts";
import { daemonServes, findDaemon } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { withService } from "../local.ts";
import { renderLineage } from "../tree-lines.ts";
import { defineVerb } from "../verb.ts";

/** The daemon's when it is the one that is meant: only a daemon has sandboxes that live on. */
async function findLineage(context: Context): Promise<Lineage> {
  const daemon = await findDaemon(context);
  const served = daemon?.snapshots.every((item) => daemonServes(context.settings, item));
  if (daemon !== undefined && served && daemon.snapshots.length > 0) {
    return daemon.client.getLineage({ signal: context.signal });
  }
  return withService(context, (service) => service.lineage());
}

const count = (nodes: readonly LineageNode[], kind: LineageNode["kind"]): number =>
  nodes.filter((node) => node.kind === kind).length;

export const treeVerb = defineVerb({
  describe: (command) =>
    command.name("tree").description("draw which snapshots and live sandboxes came from which"),
  parse: () => ({}),
  run: async (context) => {
    const { output } = context;
    const lineage = await findLineage(context);
    if (output.json) {
      output.data(lineage);
      return exitCodes.ok;
    }
    for (const line of renderLineage(lineage.nodes)) output.line(line);
    const { nodes } = lineage;
    output.progress(`${count(nodes, "snapshot")} snapshots, ${count(nodes, "sandbox")} sandboxes`);
    return exitCodes.ok;
  },
});
