import { limits, type SnapshotTag } from "@forkd/api";
import type { WarmSpec } from "../../fork/service.ts";
import {
  addExtraOption,
  addMachineOptions,
  bakeImage,
  buildImage,
  type ImageOptions,
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
import { defineVerb } from "../verb.ts";
import { addWarmOptions, parseWarmOptions } from "../warm-options.ts";

interface FromImageOptions {
  readonly tag: SnapshotTag;
  readonly image: ImageOptions;
  readonly machine: MachineOptions;
  readonly warm: WarmSpec;
  readonly force: boolean;
  readonly ignored: readonly string[];
}

const examples = `
REF is one of:
  python:3.12-slim, docker://HOST/NAME:TAG   from an OCI registry
  oci:DIR, docker-archive:FILE               an image on this host
  debian:bookworm                            bootstrapped from the distribution's packages
  tar:FILE, dir:DIR                          any root file system

Examples:
  forkd from-image debian:bookworm --tag np --extra python3-numpy --warm python --import numpy
  forkd from-image nginx:1.29 --tag web --warm-cmd 'nginx -g "daemon off;"' --ready tcp:80`;

function parseImage(args: readonly string[], flags: Flags): ImageOptions {
  const [ref] = args;
  if (ref === undefined) throw usage("name an image", "for example: debian:bookworm");
  const sizeMib = flags.optionalInteger("sizeMib", { min: 1, max: limits.rootfsMaxMib }) ?? null;
  return { ref, extra: flags.list("extra"), sizeMib, refresh: flags.on("refresh") };
}

export const fromImageVerb = defineVerb<FromImageOptions>({
  describe: (command) => {
    command
      .name("from-image")
      .description("build a root image, boot it, warm it, freeze it: a snapshot to fork")
      .argument("<ref>", "the image")
      .requiredOption("--tag <tag>", "the new snapshot's name")
      .option("--size-mib <mib>", "size of the root file system; else what the content needs")
      .option("--refresh", "build the root image again, also when it is in the store")
      .option("--force", "replace the snapshot of this tag");
    addExtraOption(command);
    addMachineOptions(command);
    addWarmOptions(command);
    return addIgnoredOptions(command, ["cache", "bootWaitSecs"]).addHelpText("after", examples);
  },
  parse: ({ flags, args, rest }) => {
    refuseTap(flags);
    return {
      tag: parseTag(flags),
      image: parseImage([...args, ...rest], flags),
      machine: parseMachine(flags),
      warm: parseWarmOptions(flags),
      force: flags.on("force"),
      ignored: noteIgnored(flags, ["cache", "bootWaitSecs"]),
    };
  },
  run: (context, { tag, image, machine, warm, force, ignored }) =>
    withService(context, async (service) => {
      const { output } = context;
      for (const note of ignored) output.warn(note);
      if (!force) await requireFreeTag(service, tag);
      await requireKernel(context, machine.kernel);
      const built = await buildImage(context, image);
      const bake = { ...machine, tag, warm, replace: force };
      const info = await bakeImage(context, service, { image: built, bake });
      if (output.json) output.data(info);
      else output.line(info.tag);
      return exitCodes.ok;
    }),
});
