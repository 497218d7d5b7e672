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
import { addIgnoredOptions, noteIgnored, refuseTap } from "../compat-options.ts";
import { exitCodes } from "../exit.ts";
import { type Flags, usage } from "../flags.ts";
import { withService } from "../local.ts";
import { collect, defineVerb } from "../verb.ts";
import { addWarmOptions, parseWarmOptions } from "../warm-options.ts";

interface SnapshotOptions {
  readonly tag: SnapshotTag;
  readonly rootfs: string;
  readonly machine: MachineOptions;
  readonly warm: WarmSpec;
  readonly ignored: readonly string[];
}

const ignorable = ["bootWaitSecs", "rw", "keepWorkdir"] as const;

/** Forms that this version cannot do; taking another one in silence would be worse. */
function refuseBranch(flags: Flags): void {
  const asked = ["fromSandbox", "diff", "live", "noWait"].find(
    (name) => flags.text(name) !== undefined || flags.on(name),
  );
  if (asked !== undefined || flags.text("wait") !== undefined) {
    throw new ForkdError("bad_request", "this version of forkd cannot branch a running sandbox", {
      hint: "boot a root image instead: forkd snapshot --tag TAG --rootfs FILE",
    });
  }
  if (flags.list("volume").length > 0) {
    throw new ForkdError("bad_request", "--volume is not supported by this version of forkd", {
      hint: "put the files into the root image: forkd from-image dir:DIR --tag TAG",
    });
  }
}

export const snapshotVerb = defineVerb<SnapshotOptions>({
  describe: (command) => {
    command
      .name("snapshot")
      .description("boot a root image that you made, warm it, freeze it: a snapshot to fork")
      .option("--tag <tag>", "the new snapshot's name")
      .addOption(new Option("--rootfs <file>", "the root image").env("FORKD_ROOTFS"));
    addMachineOptions(command);
    addWarmOptions(command);
    for (const flags of ["--from-sandbox <id>", "--diff", "--live", "--no-wait"]) {
      command.addOption(new Option(flags).hideHelp());
    }
    command.addOption(new Option("--volume <spec>").argParser(collect).hideHelp());
    return addIgnoredOptions(command, ignorable);
  },
  parse: ({ flags }) => {
    refuseBranch(flags);
    refuseTap(flags);
    if (flags.text("tag") === undefined) throw usage("--tag needs a value");
    return {
      tag: parseTag(flags),
      rootfs: resolve(flags.required("rootfs")),
      machine: parseMachine(flags),
      warm: parseWarmOptions(flags),
      ignored: noteIgnored(flags, ignorable),
    };
  },
  run: (context, { tag, rootfs, machine, warm, ignored }) =>
    withService(context, async (service) => {
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
    }),
});
