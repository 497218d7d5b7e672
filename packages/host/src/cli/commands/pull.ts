import { parseSnapshotTag, type SnapshotTag } from "@forkd/api";
import type { PullOrder, PullReport } from "../../fork/pull.ts";
import { nameOfRemote, parsePullTarget } from "../../remote/address.ts";
import { nameOf } from "../../remote/names.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { type Flags, usage } from "../flags.ts";
import { hubUrl, withHubOption } from "../hub-url.ts";
import { withAudit, withService } from "../local.ts";
import type { Output } from "../output.ts";
import { shareOf } from "../share-progress.ts";
import { defineVerb } from "../verb.ts";

interface PullLine {
  readonly from: PullOrder["from"];
  readonly tag: SnapshotTag | null;
  readonly sha256: string | null;
  readonly force: boolean;
}

function sourceOf(target: string, flags: Flags): PullOrder["from"] {
  const from = parsePullTarget(target);
  return from.kind === "hub" ? { ...from, hub: hubUrl(flags) } : from;
}

function nameOfSource(from: PullOrder["from"]): string {
  if (from.kind !== "hub") return nameOfRemote(from);
  const { owner, name, version } = from.ref;
  return `${owner}/${name}@${version} of ${nameOf(from.hub)}`;
}

async function pull(context: Context, line: PullLine): Promise<PullReport> {
  const { pull: fetchAndUnpack } = await import("../../fork/pull.ts");
  const { settings, output, signal } = context;
  const share = shareOf(output, "fetching");
  return await withService(context, (service) =>
    fetchAndUnpack({
      ...line,
      paths: settings.paths,
      env: settings.env,
      signal,
      unpack: (order) => service.unpack({ ...order, onProgress: shareOf(output, "unpacking") }),
      onBytes: (doneBytes, totalBytes) => {
        if (totalBytes !== null) share({ doneBytes, totalBytes });
      },
      onNotice: (text) => output.progress(text),
    }),
  );
}

function print(output: Output, report: PullReport): void {
  for (const tag of report.reused) output.hint(`'${tag}' is here already`);
  output.success(`pulled ${report.snapshots.map(({ tag }) => `'${tag}'`).join(", ")}`);
  output.line(report.tag);
  if (report.verified) output.hint(`sha256: ${report.sha256}`);
  else {
    output.warn(`nobody said what ${report.from} must hash to`);
    output.hint(`to have the very same again: --sha256 ${report.sha256}`);
  }
  output.hint(`fork it with: forkd fork --tag ${report.tag} -n 10`);
}

export const pullVerb = defineVerb<PullLine>({
  describe: (command) =>
    withHubOption(
      command
        .name("pull")
        .description("fetch a pack and take it into the data directory; goes on where it stopped")
        .argument("<target>", "https://HOST/FILE, s3://BUCKET/KEY, or OWNER/NAME[@VERSION]")
        .option("--tag <tag>", "another name for it, else the one that it was packed under")
        .option("--sha256 <hash>", "what the pack must hash to")
        .option(
          "--force",
          "replace a snapshot of that name, and keep one that this host cannot run",
        ),
    ),
  parse: ({ flags, args, rest }) => {
    const [target, ...more] = [...args, ...rest];
    if (target === undefined || more.length > 0) throw usage("name one pack to pull");
    const tag = flags.text("tag");
    const sha256 = flags.text("sha256")?.toLowerCase() ?? null;
    if (sha256 !== null && !/^[0-9a-f]{64}$/.test(sha256)) {
      throw usage("--sha256 must be 64 hex digits", "ask who published the pack for it");
    }
    return {
      from: sourceOf(target, flags),
      tag: tag === undefined ? null : parseSnapshotTag(tag),
      sha256,
      force: flags.on("force"),
    };
  },
  run: async (context, line) => {
    const { output } = context;
    const about = {
      operation: "pull",
      address: nameOfSource(line.from),
      ...(line.tag !== null && { snapshot_tag: line.tag }),
    } as const;
    // The name is the pack's own when nobody gave one.
    const factsOf = ({ sha256, tag }: PullReport) => ({ sha256, snapshot_tag: tag });
    const report = await withAudit(context, { about, factsOf }, () => pull(context, line));
    for (const warning of report.warnings) output.warn(warning);
    if (output.json) output.data(report);
    else print(output, report);
    return exitCodes.ok;
  },
});
