import { ForkdError, limits, parseSandboxId, parseSnapshotTag, type SnapshotTag } from "@forkd/api";
import type { BakeImage, ForkService, KernelOverride } from "../../fork/service.ts";
import {
  addExtraOption,
  addKernelOptions,
  bakeImage,
  buildImage,
  coldWarm,
  defaultMachine,
  findSnapshot,
  parseKernel,
  requireKernel,
} from "../bake.ts";
import { addIgnoredOptions, noteIgnored, refuseTap } from "../compat-options.ts";
import type { Context } from "../context.ts";
import { reportExec } from "../exec-report.ts";
import { usage } from "../flags.ts";
import { parseTimeoutSecs } from "../guest.ts";
import { withService } from "../local.ts";
import { slugOf } from "../parse.ts";
import { defineVerb } from "../verb.ts";

interface RunOptions {
  readonly ref: string;
  readonly extra: readonly string[];
  readonly kernel: KernelOverride | null;
  readonly args: readonly string[];
  readonly timeoutSecs: number;
  readonly ignored: readonly string[];
}

const timeoutDefaultSecs = 60;
const contentDigits = 12;
/** What a tag has room for beside "run-" and the content's digits. */
const slugMax = 64 - "run-".length - contentDigits - 1;

/** The tag names the root image's content: the snapshot is fresh exactly when it exists. */
function runTag(ref: string, image: BakeImage): SnapshotTag {
  const content = image.sha256.slice(0, contentDigits);
  return parseSnapshotTag(`run-${slugOf(ref, slugMax)}-${content}`);
}

async function ensureSnapshot(
  context: Context,
  service: ForkService,
  options: RunOptions,
): Promise<SnapshotTag> {
  await requireKernel(context, options.kernel);
  const image = await buildImage(context, { ...options, sizeMib: null });
  const tag = runTag(options.ref, image);
  const present = await findSnapshot(service, tag);
  if (present?.status === "ready" && options.kernel === null) return tag;
  const bake = { ...defaultMachine, kernel: options.kernel, tag, warm: coldWarm, replace: true };
  await bakeImage(context, service, { image, bake });
  return tag;
}

async function execOnce(
  context: Context,
  service: ForkService,
  order: { readonly tag: SnapshotTag; readonly options: RunOptions },
): Promise<number> {
  const { args, timeoutSecs } = order.options;
  const { noLimits } = await import("../../fork/asked-limits.ts");
  const request = { tag: order.tag, count: 1, limits: noLimits, minIsolation: null };
  const [child] = await service.spawn(request);
  if (child === undefined) throw new ForkdError("internal", "a fork of 1 made no child");
  const id = parseSandboxId(child.info.id);
  try {
    const exec = { args: [...args], timeout_secs: timeoutSecs, env: {} };
    return reportExec(context.output, await service.exec(id, exec), timeoutSecs);
  } finally {
    if (!context.signal.aborted) await service.kill(id);
  }
}

export const runVerb = defineVerb<RunOptions>({
  describe: (command) => {
    command
      .name("run")
      .usage("[options] --image REF -- COMMAND...")
      .description("run one command in a microVM of an image; exits with the command's own code")
      .requiredOption("--image <ref>", "the image, in any form that from-image takes")
      .argument("[command...]", "after --: the command and its arguments")
      .option("--timeout-secs <secs>", "kill it after this time", String(timeoutDefaultSecs));
    addExtraOption(command);
    addKernelOptions(command);
    return addIgnoredOptions(command, ["cache"]);
  },
  parse: ({ flags, args, rest }) => {
    refuseTap(flags);
    if (args.length > 0 || rest.length === 0) {
      throw usage("no command after --", "for example: forkd run --image REF -- uname -a");
    }
    if (rest.length > limits.execArgsMax) {
      throw usage(`a command has at most ${limits.execArgsMax} words`);
    }
    return {
      ref: flags.required("image"),
      extra: flags.list("extra"),
      kernel: parseKernel(flags),
      args: rest,
      timeoutSecs: parseTimeoutSecs(flags),
      ignored: noteIgnored(flags, ["cache"]),
    };
  },
  run: (context, options) => {
    for (const note of options.ignored) context.output.warn(note);
    return withService(context, async (service) => {
      const tag = await ensureSnapshot(context, service, options);
      return execOnce(context, service, { tag, options });
    });
  },
});
