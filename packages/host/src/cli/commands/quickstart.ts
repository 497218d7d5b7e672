import { limits, parseSandboxId, type SnapshotTag, toForkdError } from "@forkd/api";
import type { ForkService, SpawnedSandbox, WarmSpec } from "../../fork/service.ts";
import {
  bakeImage,
  buildImage,
  coldWarm,
  defaultMachine,
  findSnapshot,
  parseTag,
} from "../bake.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { withService } from "../local.ts";
import { printChildren, printNextSteps, type QuickstartChild } from "../quickstart-report.ts";
import { parseCount } from "../spawn-options.ts";
import { defineVerb } from "../verb.ts";

interface QuickstartOptions {
  readonly tag: SnapshotTag;
  readonly ref: string;
  readonly count: number;
}

const question = "numpy.zeros(5).tolist()";
const answer = JSON.stringify([0, 0, 0, 0, 0]);
const evalTimeoutSecs = 60;
const warm: WarmSpec = { ...coldWarm, runtime: "python", imports: ["numpy"] };

async function ensureKernel(context: Context): Promise<void> {
  const { output, settings, signal } = context;
  const { findDefaultKernel } = await import("../../store/kernels.ts");
  const present = await findDefaultKernel(settings.paths);
  if (present !== undefined) {
    output.progress(`guest kernel ${present.record.release}`);
    return;
  }
  const { installKernel } = await import("../../kernel/install.ts");
  output.progress("installing a guest kernel (apt; the host's own kernel is not changed)");
  const progress = (message: string): void => output.progress(message);
  await installKernel({ paths: settings.paths, progress, signal });
}

async function bakeQuickstart(
  context: Context,
  service: ForkService,
  { tag, ref }: QuickstartOptions,
): Promise<void> {
  const image = await buildImage(context, { ref, extra: ["python3-numpy"], sizeMib: null });
  const bake = { ...defaultMachine, tag, warm, replace: true };
  await bakeImage(context, service, { image, bake });
}

/** Snapshots that a change of host or engine made useless are baked again, once. */
const staleCodes: readonly string[] = ["snapshot_incompatible", "snapshot_incomplete"];

async function forkFresh(
  context: Context,
  service: ForkService,
  options: QuickstartOptions,
): Promise<QuickstartChild[]> {
  try {
    return await fork(context, service, options);
  } catch (error) {
    const problem = toForkdError(error);
    if (!staleCodes.includes(problem.code)) throw error;
    context.output.progress(`baking it again: ${problem.message}`);
    await bakeQuickstart(context, service, options);
    return fork(context, service, options);
  }
}

async function fork(
  { output }: Context,
  service: ForkService,
  { tag, count }: QuickstartOptions,
): Promise<QuickstartChild[]> {
  output.progress(`forking ${count} children of ${tag}; evaluating ${question} in each`);
  const startedAt = performance.now();
  const asked: Promise<QuickstartChild>[] = [];
  const onChild = (child: SpawnedSandbox): void => {
    asked.push(verify(service, child, { index: asked.length, startedAt }));
  };
  const { noLimits } = await import("../../fork/asked-limits.ts");
  await service.spawn({ tag, count, limits: noLimits, minIsolation: null, onChild });
  return Promise.all(asked);
}

/** Asks one child, and believes nothing but the right answer. */
async function verify(
  service: ForkService,
  child: SpawnedSandbox,
  place: { readonly index: number; readonly startedAt: number },
): Promise<QuickstartChild> {
  const { info, timings } = child;
  const failure = await wrongness(service, info.id);
  return {
    index: place.index + 1,
    hostname: info.hostname,
    timings,
    answerMs: failure === null ? performance.now() - place.startedAt : null,
    failure,
  };
}

/** What is wrong with a child's answer; null when it is right. */
async function wrongness(service: ForkService, id: string): Promise<string | null> {
  try {
    const request = { code: question, timeout_secs: evalTimeoutSecs };
    const result = await service.eval(parseSandboxId(id), request);
    if (result.error !== null) return result.error;
    const got = result.result_json ?? result.result ?? "nothing";
    return sameJson(got) ? null : `answered ${got.slice(0, 80)}`;
  } catch (error) {
    return toForkdError(error).message;
  }
}

function sameJson(text: string): boolean {
  try {
    return JSON.stringify(JSON.parse(text)) === answer;
  } catch {
    return false;
  }
}

function report(
  { output }: Context,
  { tag }: QuickstartOptions,
  children: readonly QuickstartChild[],
): number {
  const verified = children.filter(({ answerMs }) => answerMs !== null).length;
  if (output.json) output.data({ tag, n: children.length, verified, children });
  else printChildren(output, children);
  for (const { index, failure } of children) {
    if (failure !== null) output.warn(`child ${index}: ${failure}`);
  }
  if (verified < children.length) return exitCodes.failure;
  printNextSteps(output, tag);
  return exitCodes.ok;
}

async function quickstart(
  context: Context,
  service: ForkService,
  options: QuickstartOptions,
): Promise<number> {
  const { output } = context;
  await ensureKernel(context);
  const present = await findSnapshot(service, options.tag);
  if (present?.status === "ready" && present.image === options.ref) {
    output.progress(`snapshot ${options.tag} is there already`);
  } else await bakeQuickstart(context, service, options);
  return report(context, options, await forkFresh(context, service, options));
}

export const quickstartVerb = defineVerb<QuickstartOptions>({
  describe: (command) =>
    command
      .name("quickstart")
      .description("from nothing to verified children: kernel, image, snapshot, fork, eval")
      .option("-n, --n <count>", `how many children, 1 to ${limits.spawnCountMax}`, "10")
      .option(
        "--image <ref>",
        "the parent's image; the default needs apt only, no image registry",
        "debian:bookworm",
      )
      .option("--tag <tag>", "the snapshot's name", "quickstart")
      .option("-y, --yes", "accepted for scripts; nothing is asked"),
  parse: ({ flags }) => ({
    tag: parseTag(flags),
    ref: flags.required("image"),
    count: parseCount(flags),
  }),
  run: (context, options) =>
    withService(context, (service) => quickstart(context, service, options)),
});
