import {
  ForkdError,
  limits,
  parseSnapshotTag,
  type SnapshotInfo,
  type SnapshotTag,
} from "@forkd/api";
import { type Command, Option } from "commander";
import type {
  BakeImage,
  ForkService,
  KernelOverride,
  RemoveMode,
  WarmSpec,
} from "../fork/service.ts";
import type { Context } from "./context.ts";
import { findDaemonWith } from "./daemon.ts";
import type { Flags } from "./flags.ts";
import { formatBytes } from "./format.ts";
import { collect } from "./verb.ts";

/** How the parent is booted: shared by from-image and snapshot. */
export interface MachineOptions {
  readonly kernel: KernelOverride | null;
  readonly memoryMib: number;
  readonly vcpus: number;
  readonly scratchMib?: number;
}

/** Which root image, and how it is built. */
export interface ImageOptions {
  readonly ref: string;
  readonly extra: readonly string[];
  readonly sizeMib: number | null;
  /** Builds again even when an image from the same inputs is in the store. */
  readonly refresh?: boolean;
}

export function addKernelOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--kernel <file>", "boot this kernel, not the installed one").env("FORKD_KERNEL"),
    )
    .option("--initrd <file>", "boot with this initramfs, not the one built for the kernel");
}

export function addMachineOptions(command: Command): Command {
  return addKernelOptions(command)
    .option("--mem-size-mib <mib>", "the guest's memory", String(limits.memoryDefaultMib))
    .option("--vcpus <n>", "the guest's processors", "1")
    .option("--scratch-mib <mib>", "have the guests write to a disk of this size, not to memory");
}

export function addExtraOption(command: Command): Command {
  return command.option("--extra <package>", "install this apt package too; may repeat", collect);
}

export function parseKernel(flags: Flags): KernelOverride | null {
  const vmlinuz = flags.text("kernel") ?? null;
  const initrd = flags.text("initrd") ?? null;
  return vmlinuz === null && initrd === null ? null : { vmlinuz, initrd };
}

export function parseMachine(flags: Flags): MachineOptions {
  const scratch = { min: limits.scratchMinMib, max: limits.scratchMaxMib };
  const scratchMib = flags.optionalInteger("scratchMib", scratch);
  return {
    ...(scratchMib === undefined ? {} : { scratchMib }),
    kernel: parseKernel(flags),
    memoryMib: flags.integer("memSizeMib", { min: limits.memoryMinMib, max: limits.memoryMaxMib }),
    vcpus: flags.integer("vcpus", { min: 1, max: limits.vcpusMax }),
  };
}

export function parseTag(flags: Flags): SnapshotTag {
  return parseSnapshotTag(flags.required("tag"));
}

export const defaultMachine: MachineOptions = {
  kernel: null,
  memoryMib: limits.memoryDefaultMib,
  vcpus: 1,
};

export const coldWarm: WarmSpec = {
  runtime: null,
  imports: [],
  command: null,
  ready: null,
  timeoutMs: limits.warmTimeoutDefaultSecs * 1000,
};

/** Fails before an image is built for minutes. Throws what resolveKernel throws. */
export async function requireKernel(
  context: Context,
  kernel: KernelOverride | null,
): Promise<void> {
  const { resolveKernel } = await import("../kernel/resolve.ts");
  await resolveKernel(context.settings.paths, kernel ?? {});
}

export async function findSnapshot(
  service: ForkService,
  tag: SnapshotTag,
): Promise<SnapshotInfo | undefined> {
  return (await service.listSnapshots()).find((snapshot) => snapshot.tag === tag);
}

/** Throws snapshot_exists, for commands that must not take another snapshot's place. */
export async function requireFreeTag(service: ForkService, tag: SnapshotTag): Promise<void> {
  if ((await findSnapshot(service, tag)) === undefined) return;
  throw new ForkdError("snapshot_exists", `there is a snapshot ${tag} already`, {
    hint: `add --force to replace it, or remove it with: forkd rmi ${tag}`,
  });
}

export interface Removal {
  readonly tag: SnapshotTag;
  readonly mode: RemoveMode;
}

/** Through the daemon when it has the tag: it knows whether children still use the snapshot. */
export async function removeSnapshot(
  context: Context,
  service: ForkService,
  { tag, mode }: Removal,
): Promise<"daemon" | "disk"> {
  const daemon = await findDaemonWith(context, tag);
  if (daemon === undefined) {
    await service.deleteSnapshot(tag, mode);
    return "disk";
  }
  const query = { cascade: mode === "cascade", force: mode === "orphan" };
  await daemon.client.deleteSnapshot({ params: { tag }, query });
  return "daemon";
}

export async function buildImage(context: Context, options: ImageOptions): Promise<BakeImage> {
  const { output, settings, signal } = context;
  const { buildRootImage } = await import("../image/build.ts");
  output.progress(`root image of ${options.ref}`);
  const image = await buildRootImage({
    ref: options.ref,
    extra: options.extra,
    sizeMib: options.sizeMib,
    refresh: options.refresh ?? false,
    paths: settings.paths,
    progress: (message) => output.progress(message),
    signal,
  });
  output.progress(`root image ${image.sha256.slice(0, 12)}, ${formatBytes(image.sizeBytes)}`);
  const { path, sha256, ref, config } = image;
  const { env, user, workdir } = config;
  return { path, sha256, ref, env, user, workdir };
}

export interface BakeOrder extends MachineOptions {
  readonly tag: SnapshotTag;
  readonly warm: WarmSpec;
  readonly replace: boolean;
}

/** Boots, warms and freezes a built root image. */
export async function bakeImage(
  context: Context,
  service: ForkService,
  order: { readonly image: BakeImage; readonly bake: BakeOrder },
): Promise<SnapshotInfo> {
  const startedAt = performance.now();
  const request = { ...order.bake, image: order.image };
  const info = await service.bake(request, (message) => context.output.progress(message));
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  context.output.success(`snapshot ${info.tag} is ready, ${seconds} s`);
  return info;
}
