import { resolve } from "node:path";
import { ForkdError, type SnapshotTag } from "@forkd/api";
import { Option } from "commander";
import type { WarmSpec } from "../../fork/service.ts";
import {
  addMachineOptions,
  bakeImage,
  type MachineOptions,
  parseMachine,
  parseTag,
  requireFreeTag,
  requireKernel,
} from "../bake.ts";
import { addBranchOptions, type BranchOrder, parseBranch, runBranch } from "../branch.ts";
import { addIgnoredOptions, noteIgnored, refuseTap } from "../compat-options.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { type Flags, flagOf, usage } from "../flags.ts";
import { withService } from "../local.ts";
import { collect, defineVerb } from "../verb.ts";
import { addWarmOptions, parseWarmOptions } from "../warm-options.ts";

interface BootOrder {
  readonly tag: SnapshotTag;
  readonly rootfs: string;
  readonly machine: MachineOptions;
  readonly warm: WarmSpec;
  readonly ignored: readonly string[];
}

type SnapshotOrder = { readonly boot: BootOrder } | { readonly branch: BranchOrder };

const ignorable = ["bootWaitSecs", "rw", "keepWorkdir"] as const;

function refuseVolumes(flags: Flags): void {
  if (flags.list("volume").length === 0) return;
  throw new ForkdError("bad_request", "--volume is not supported by this version of forkd", {
    hint: "put the files into the root image: forkd from-image dir:DIR --tag TAG",
  });
}

/** Of a running sandbox, through the daemon; undefined when a root image is to be booted. */
function parseBranchForm(flags: Flags): BranchOrder | undefined {
  const id = flags.text("fromSandbox");
  if (id !== undefined) return parseBranch(flags, id);
  const stray = ["diff", "live", "maxPauseMs"].find(
    (name) => flags.on(name) || flags.text(name) !== undefined,
  );
  if (stray !== undefined || !flags.on("wait")) {
    throw usage(`${flagOf(stray ?? "noWait")} needs --from-sandbox ID`);
  }
  return undefined;
}

function parseBoot(flags: Flags): BootOrder {
  if (flags.text("tag") === undefined) throw usage("--tag needs a value");
  return {
    tag: parseTag(flags),
    rootfs: resolve(flags.required("rootfs")),
    machine: parseMachine(flags),
    warm: parseWarmOptions(flags),
    ignored: noteIgnored(flags, ignorable),
  };
}

async function bootAndFreeze(context: Context, order: BootOrder): Promise<number> {
  const { tag, rootfs, machine, warm, ignored } = order;
  return withService(context, async (service) => {
    const { output } = context;
    for (const note of ignored) output.warn(note);
    await requireFreeTag(service, tag);
    await requireKernel(context, machine.kernel);
    output.progress(`root image ${rootfs}`);
    const image = await service.importImage(rootfs);
    const bake = { ...machine, tag, warm, replace: false };
    const info = await bakeImage(context, service, { image, bake });
    if (output.json) output.data(info);
    else output.line(info.tag);
    return exitCodes.ok;
  });
}

export const snapshotVerb = defineVerb<SnapshotOrder>({
  describe: (command) => {
    command
      .name("snapshot")
      .description("boot a root image that you made, warm it, freeze it; or branch a sandbox")
      .option("--tag <tag>", "the new snapshot's name")
      .option("--from-sandbox <id>", "branch this running sandbox instead of booting")
      .addOption(new Option("--rootfs <file>", "the root image").env("FORKD_ROOTFS"));
    addBranchOptions(command);
    addMachineOptions(command);
    addWarmOptions(command);
    command.addOption(new Option("--volume <spec>").argParser(collect).hideHelp());
    return addIgnoredOptions(command, ignorable);
  },
  parse: ({ flags }) => {
    refuseVolumes(flags);
    refuseTap(flags);
    const branch = parseBranchForm(flags);
    return branch === undefined ? { boot: parseBoot(flags) } : { branch };
  },
  run: (context, order) =>
    "branch" in order ? runBranch(context, order.branch) : bootAndFreeze(context, order.boot),
});
