import { tmpdir } from "node:os";
import { Option } from "commander";
import type { CleanupItem } from "../../fork/cleanup/item.ts";
import { exitCodes } from "../exit.ts";
import { formatBytes } from "../format.ts";
import type { Output } from "../output.ts";

import { defineVerb } from "../verb.ts";

function wireForm({ problem, ...item }: CleanupItem): object {
  return { ...item, problem: problem?.toProblem() ?? null };
}

/** Upstream's words for what goes and what stays. */
function verdictOf({ keep, removed, problem }: CleanupItem): string {
  if (keep !== null) return `SKIP (${keep})`;
  if (problem !== null) return `FAILED (${problem.message})`;
  return removed ? "DELETED" : "DEL";
}

const totalOf = (items: readonly CleanupItem[]): number =>
  items.reduce((sum, { bytes }) => sum + bytes, 0);

function print(output: Output, items: readonly CleanupItem[], remove: boolean): void {
  output.table(
    [
      { title: "KIND", cell: ({ kind }) => kind },
      { title: "SIZE", align: "right", cell: ({ bytes }) => formatBytes(bytes) },
      { title: "PATH", cell: ({ what }) => what },
      { title: "VERDICT", cell: verdictOf },
    ],
    items,
  );
  const going = items.filter(({ keep }) => keep === null);
  if (remove) {
    const gone = going.filter(({ removed }) => removed);
    output.line(`\nremoved ${gone.length}, freed ${formatBytes(totalOf(gone))}`);
  } else {
    output.line(`\n${going.length} can go, ${formatBytes(totalOf(going))}: forkd cleanup --yes`);
  }
}

export const cleanupVerb = defineVerb({
  describe: (command) =>
    command
      .name("cleanup")
      .description("list what forkd keeps and nobody needs, with sizes; --yes removes it")
      .addOption(new Option("-y, --yes", "remove it").conflicts("dryRun"))
      .option("--dry-run", "only list it, as without --yes")
      .option("--images", "root images that no snapshot is of, too"),
  parse: ({ flags }) => ({ remove: flags.on("yes"), images: flags.on("images") }),
  run: async ({ settings, output }, { remove, images }) => {
    const { cleanUp } = await import("../../fork/cleanup/cleanup.ts");
    const { paths, env } = settings;
    const tmpDir = env["TMPDIR"] || tmpdir();
    const items = await cleanUp({ paths, tmpDir, images, remove, nowMs: Date.now() });
    if (output.json) output.data(items.map(wireForm));
    else print(output, items, remove);
    return items.some(({ problem }) => problem !== null) ? exitCodes.failure : exitCodes.ok;
  },
});
