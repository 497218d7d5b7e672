import { resolve } from "node:path";
import { parseSnapshotTag } from "@forkd/api";
import { Option } from "commander";
import type { PackFormat, PackReport } from "../../pack/orders.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { withService } from "../local.ts";
import { shareOf } from "../share-progress.ts";
import { defineVerb } from "../verb.ts";

/** What `--out` means for standard output. */
const standardOutput = "-";

interface PackLine {
  readonly tag: ReturnType<typeof parseSnapshotTag>;
  readonly out: string;
  readonly description: string | null;
  readonly baseImage: string | null;
  readonly thin: boolean;
  readonly force: boolean;
  readonly format: PackFormat;
}

const mib = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(1)} MiB`;

function summary(report: PackReport, ms: number): string {
  const { content_bytes: content, size_bytes: size, snapshots } = report;
  const ratio = (content / Math.max(size, 1)).toFixed(1);
  const links = snapshots.length === 1 ? "" : `, ${snapshots.length} snapshots`;
  const secs = (ms / 1000).toFixed(1);
  return `packed '${report.tag}'${links}: ${mib(content)} in ${mib(size)}, ${ratio}x, ${secs} s`;
}

async function pack(context: Context, line: PackLine): Promise<PackReport> {
  const { output, signal } = context;
  const to =
    line.out === standardOutput
      ? { stream: process.stdout }
      : { file: resolve(line.out), replace: line.force };
  return await withService(context, (service) =>
    service.pack({
      tag: line.tag,
      to,
      description: line.description,
      baseImage: line.baseImage,
      images: line.thin ? "named" : "included",
      format: line.format,
      onProgress: shareOf(output, "packing"),
      signal,
    }),
  );
}

export const packVerb = defineVerb<PackLine>({
  describe: (command) =>
    command
      .name("pack")
      .description("write a snapshot, with all that it needs, to one file for another host")
      .requiredOption("--tag <tag>", "the snapshot; its ancestors come with it")
      .option(
        "-o, --out <file>",
        "the file, - for standard output, else TAG.forkd-snapshot.tar.zst",
      )
      .option("--description <text>", "what it is, for people who list packs")
      .option(
        "--base-image <ref>",
        "what its root image was made from, else what the snapshot says",
      )
      .option("--thin", "leave root image and kernel out, for a host that has them")
      .addOption(
        new Option("--format <form>", "upstream's holds bases of Firecracker, for its own readers")
          .choices(["forkd", "upstream"])
          .default("forkd"),
      )
      .option("--force", "replace the file if there is one")
      .addHelpText("after", "\nTake it on the other host with: forkd unpack FILE"),
  parse: ({ flags, args, rest }) => {
    if (args.length + rest.length > 0) throw usage("name the snapshot with --tag");
    const tag = parseSnapshotTag(flags.required("tag"));
    return {
      tag,
      out: flags.text("out") ?? `${tag}.forkd-snapshot.tar.zst`,
      description: flags.text("description") ?? null,
      baseImage: flags.text("baseImage") ?? null,
      thin: flags.on("thin"),
      force: flags.on("force"),
      format: flags.text("format") === "upstream" ? "upstream" : "forkd",
    };
  },
  run: async (context, line) => {
    const { output } = context;
    const isPiped = line.out === standardOutput;
    if (isPiped && output.json) throw usage("--json and --out - would mix the pack with JSON");
    if (isPiped && process.stdout.isTTY) throw usage("a pack is not for a terminal", "name a file");
    const began = performance.now();
    const report = await pack(context, line);
    if (output.json) output.data(report);
    else {
      output.success(summary(report, performance.now() - began));
      output.hint(`sha256: ${report.sha256}`);
      if (report.root_image_path !== null) {
        output.hint(`its root image goes with it: ${report.root_image_path}`);
      }
      if (report.path !== null) output.line(report.path);
    }
    return exitCodes.ok;
  },
});
