import { parseSnapshotTag, type SnapshotTag } from "@forkd/api";
import type { Fault, Findings } from "../../fork/check/check.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { formatBytes } from "../format.ts";
import type { Output } from "../output.ts";
import { plain } from "../table.ts";
import { defineVerb } from "../verb.ts";

async function check(
  { settings, output, signal }: Context,
  tag: SnapshotTag | null,
): Promise<Findings> {
  const { checkStore } = await import("../../fork/check/check.ts");
  const onNotice = (text: string): void => output.progress(text);
  return await checkStore({ paths: settings.paths, onNotice, signal }, tag);
}

function print(output: Output, { kind, what, why, hint }: Fault): void {
  output.line(`${kind}  ${plain(what)}: ${plain(why)}`);
  output.line(`  hint: ${plain(hint)}`);
}

export const checkVerb = defineVerb({
  describe: (command) =>
    command
      .name("check")
      .description(
        "read all of the store and compare it with what was written; exits with 1 for any fault",
      )
      .option("--tag <tag>", "only this snapshot, its ancestors and its root image"),
  parse: ({ flags, args, rest }) => {
    if (args.length + rest.length > 0) throw usage("name the snapshot with --tag");
    const tag = flags.text("tag");
    return tag === undefined ? null : parseSnapshotTag(tag);
  },
  run: async (context, tag) => {
    const { output } = context;
    const { checked, bytes, faults } = await check(context, tag);
    if (output.json) output.data({ checked, bytes_read: bytes, faults });
    else {
      for (const fault of faults) print(output, fault);
      const found = faults.length === 0 ? "all as it was written" : `${faults.length} faults`;
      const summary = `checked ${checked} snapshots, images and kernels, ${formatBytes(bytes)}: ${found}`;
      if (faults.length === 0) output.success(summary);
      else output.progress(summary);
    }
    return faults.length === 0 ? exitCodes.ok : exitCodes.failure;
  },
});
