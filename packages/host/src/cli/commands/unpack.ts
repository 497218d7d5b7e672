import { resolve } from "node:path";
import { parseSnapshotTag, type SnapshotTag } from "@forkd/api";
import type { UnpackReport } from "../../pack/orders.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { withService } from "../local.ts";
import { shareOf } from "../share-progress.ts";
import { defineVerb } from "../verb.ts";

/** What FILE means for standard input. */
const standardInput = "-";

interface UnpackLine {
  readonly file: string;
  readonly sha256: string | null;
  readonly tag: SnapshotTag | null;
  readonly force: boolean;
}

async function unpack(context: Context, line: UnpackLine): Promise<UnpackReport> {
  const { output, signal } = context;
  const from =
    line.file === standardInput ? { stream: process.stdin } : { file: resolve(line.file) };
  return await withService(context, (service) =>
    service.unpack({
      from,
      sha256: line.sha256,
      tag: line.tag,
      force: line.force,
      onProgress: shareOf(output, "unpacking"),
      signal,
    }),
  );
}

export const unpackVerb = defineVerb<UnpackLine>({
  describe: (command) =>
    command
      .name("unpack")
      .description("take a packed snapshot, of this or of another host, into the data directory")
      .argument("<file>", "the pack, - for standard input")
      .option("--tag <tag>", "another name for it, else the one that it was packed under")
      .option("--sha256 <hash>", "what the file must hash to")
      .option("--force", "replace a snapshot of that name, and keep one that this host cannot run"),
  parse: ({ flags, args, rest }) => {
    const [file, ...more] = [...args, ...rest];
    if (file === undefined || more.length > 0)
      throw usage("name one pack, or - for standard input");
    const tag = flags.text("tag");
    const sha256 = flags.text("sha256")?.toLowerCase() ?? null;
    if (sha256 !== null && !/^[0-9a-f]{64}$/.test(sha256)) {
      throw usage("--sha256 must be 64 hex digits", "run: sha256sum FILE");
    }
    return {
      file,
      sha256,
      tag: tag === undefined ? null : parseSnapshotTag(tag),
      force: flags.on("force"),
    };
  },
  run: async (context, line) => {
    const { output } = context;
    const report = await unpack(context, line);
    for (const warning of report.warnings) output.warn(warning);
    if (output.json) output.data(report);
    else {
      for (const tag of report.reused) output.hint(`'${tag}' is here already`);
      output.success(`unpacked ${report.snapshots.map(({ tag }) => `'${tag}'`).join(", ")}`);
      output.line(report.tag);
      output.hint(`fork it with: forkd fork --tag ${report.tag} -n 10`);
    }
    return exitCodes.ok;
  },
});
