import { resolve } from "node:path";
import { parseSnapshotTag } from "@forkd/api";
import type { PushReport, PushSource } from "../../fork/push.ts";
import { nameOfRemote, parseRemote, type RemoteAddress } from "../../remote/address.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { type Flags, usage } from "../flags.ts";
import { withAudit, withService } from "../local.ts";
import { shareOf } from "../share-progress.ts";
import { defineVerb } from "../verb.ts";

interface PushLine {
  readonly to: RemoteAddress;
  readonly source: PushSource;
  readonly force: boolean;
}

const forTagsOnly = ["description", "baseImage", "thin"] as const;

function sourceOf(flags: Flags): PushSource {
  const tag = flags.text("tag");
  const file = flags.text("file");
  if ((tag === undefined) === (file === undefined)) {
    throw usage("name what to send: --tag TAG, or --file PACK", "one of them, not both");
  }
  if (tag !== undefined) {
    return {
      tag: parseSnapshotTag(tag),
      description: flags.text("description") ?? null,
      baseImage: flags.text("baseImage") ?? null,
      images: flags.on("thin") ? "named" : "included",
    };
  }
  if (forTagsOnly.some((name) => flags.on(name) || flags.text(name) !== undefined)) {
    throw usage("--file sends a pack as it is", "say what is in it when you make it: forkd pack");
  }
  return { file: resolve(file ?? "") };
}

async function push({ settings, output, signal }: Context, line: PushLine, pack: Packer) {
  const { push: send } = await import("../../fork/push.ts");
  const share = shareOf(output, "sending");
  return await send({
    ...line,
    paths: settings.paths,
    env: settings.env,
    signal,
    pack,
    onBytes: (doneBytes, totalBytes) => share({ doneBytes, totalBytes: totalBytes ?? doneBytes }),
    onNotice: (text) => output.progress(text),
  });
}

type Packer = Parameters<typeof import("../../fork/push.ts")["push"]>[0]["pack"];

function run(context: Context, line: PushLine): Promise<PushReport> {
  const { source } = line;
  // A file needs nothing of the data directory.
  if ("file" in source) return push(context, line, () => Promise.reject(new Error("no tag")));
  return withService(context, (service) => push(context, line, (order) => service.pack(order)));
}

export const pushVerb = defineVerb<PushLine>({
  describe: (command) =>
    command
      .name("push")
      .description("send a snapshot as a pack to a presigned address, a server or S3")
      .argument("<url>", "https://HOST/FILE, which takes a PUT, or s3://BUCKET/KEY")
      .option("--tag <tag>", "the snapshot; its ancestors come with it")
      .option("--file <pack>", "a pack that is there already")
      .option("--description <text>", "what it is, for people who list packs")
      .option("--base-image <ref>", "what its root image was made from")
      .option("--thin", "leave root image and kernel out, for a host that has them")
      .option("--force", "replace another object of S3; an http address is always replaced")
      .addHelpText(
        "after",
        "\nFor s3:// the usual variables and profiles count: AWS_PROFILE, AWS_ACCESS_KEY_ID, " +
          "AWS_REGION;\nAWS_ENDPOINT_URL names another store than Amazon's.",
      ),
  parse: ({ flags, args, rest }) => {
    const [to, ...more] = [...args, ...rest];
    if (to === undefined || more.length > 0) throw usage("name one address to send it to");
    return { to: parseRemote(to), source: sourceOf(flags), force: flags.on("force") };
  },
  run: async (context, line) => {
    const { output } = context;
    const { source, to } = line;
    const about = {
      operation: "push",
      address: nameOfRemote(to),
      ...("tag" in source && { snapshot_tag: source.tag }),
    } as const;
    const factsOf = ({ sha256 }: PushReport) => ({ sha256 });
    const report = await withAudit(context, { about, factsOf }, () => run(context, line));
    if (output.json) {
      output.data(report);
      return exitCodes.ok;
    }
    if (!report.sent) output.success(`${report.to} has it already`);
    else if (report.confirmed) output.success(`sent, and ${report.to} has all of it`);
    else output.success(`${report.to} took it`);
    output.hint(`sha256: ${report.sha256}`);
    output.line(report.to);
    return exitCodes.ok;
  },
});
