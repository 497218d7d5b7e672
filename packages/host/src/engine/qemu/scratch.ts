import { stat } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import type { ChildScratch, DiskLayer } from "../engine.ts";
import { createQcow2 } from "./qcow2.ts";

/** The device of the disk, by which its current top is found. */
export const scratchDeviceId = "scratch";

/** A full disk is the guest's to hear of: by itself QEMU would stop the VM and wait for room. */
const scratchDevice = `virtio-blk-device,id=${scratchDeviceId},werror=report,rerror=report`;

/** QEMU's name of the layer at a place in the chain, the oldest at 0. */
export function layerNode(index: number): string {
  return `scratch-${index}`;
}

/** A child's layers, none without a disk. Throws engine_failed for a disk of another kind. */
export function layersOf(scratch: ChildScratch | null): readonly DiskLayer[] {
  if (scratch === null) return [];
  if (scratch.kind === "layers") return scratch.layers;
  throw new ForkdError("engine_failed", "scratch disks of QEMU are layers");
}

/**
 * A disk of layers, of which only the last is written. The layers are chained by name: what an
 * image says of its backing file counts for nothing. Empty without layers.
 */
export function scratchArgs(layers: readonly DiskLayer[]): string[] {
  if (layers.length === 0) return [];
  const top = layers.length - 1;
  const nodes = layers.flatMap((layer, index) =>
    layerNodes(layer, { index, write: index === top }),
  );
  return [
    ...nodes.flatMap((node) => ["-blockdev", JSON.stringify(node)]),
    ...["-device", `${scratchDevice},drive=${layerNode(top)}`],
  ];
}

export interface LayerUse {
  readonly index: number;
  readonly write: boolean;
  /** Nothing lies below it yet: a capture puts it on another one. */
  readonly loose?: true;
}

/**
 * The two nodes of one layer: its file, locked as long as it is open, and its format. The disk does
 * not outlive its host, so the guest's flushes need not wait for the host's disk: publishing a
 * snapshot does.
 */
export function layerNodes(
  { file, format }: DiskLayer,
  { index, write, loose }: LayerUse,
): object[] {
  const node = layerNode(index);
  const common = { "read-only": !write, cache: { direct: false, "no-flush": true } };
  const below = index === 0 || loose === true ? null : layerNode(index - 1);
  return [
    {
      ...common,
      driver: "file",
      // The file is reopened without the right to write once a branch puts another layer on it.
      "auto-read-only": write,
      "node-name": `${node}-file`,
      filename: file,
      locking: "on",
      discard: "unmap",
    },
    {
      ...common,
      driver: format,
      "node-name": node,
      file: `${node}-file`,
      discard: "unmap",
      ...(format === "qcow2" ? { backing: below } : {}),
    },
  ];
}

/** Makes the file of the last layer, as large as the disk. */
export async function createTopLayer(layers: readonly DiskLayer[]): Promise<void> {
  const [oldest] = layers;
  const top = layers.at(-1);
  if (oldest === undefined || top === undefined || top === oldest) return;
  await createQcow2(top.file, (await stat(oldest.file)).size);
}
