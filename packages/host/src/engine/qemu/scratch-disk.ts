import { ForkdError } from "@forkd/api";
import { z } from "zod";
import type { DiskPivot, LayeredScratch, NumberedLayer } from "../engine.ts";
import { createQcow2 } from "./qcow2.ts";
import type { Qmp } from "./qmp.ts";
import { layerNode, layerNodes } from "./scratch.ts";

/** Layers hold what a guest wrote between branches; a slow disk may have to read and write it all. */
const mergeTimeoutMs = 240_000;
const mergeJob = "forkd-merge";

/** `query-block` of QEMU's QMP reference, as far as we read it. */
const blockSchema = z.array(
  z.object({ inserted: z.object({ "node-name": z.string().optional() }).optional() }),
);

/** The nodes that a VM's disks read and write now, by QEMU's names for them. */
export async function topNodes(qmp: Qmp): Promise<readonly string[]> {
  const blocks = blockSchema.parse(await qmp.execute("query-block"));
  return blocks.flatMap(({ inserted }) => inserted?.["node-name"] ?? []);
}

/** The scratch disk of a running QEMU, by its monitor. */
export class QemuScratch implements LayeredScratch {
  readonly kind = "layers";
  readonly #qmp: Qmp;

  constructor(qmp: Qmp) {
    this.#qmp = qmp;
  }

  async top(): Promise<number> {
    for (const node of await topNodes(this.#qmp)) {
      const [, number] = /^scratch-(\d+)$/.exec(node) ?? [];
      if (number !== undefined) return Number(number);
    }
    throw new ForkdError("engine_failed", "the VM has no scratch disk");
  }

  async add(
    layer: NumberedLayer,
    { under, bytes }: { readonly under: number; readonly bytes: number },
  ): Promise<DiskPivot> {
    await createQcow2(layer.file, bytes);
    const use = { index: layer.number, write: true, loose: true } as const;
    for (const node of layerNodes(layer, use)) await this.#qmp.execute("blockdev-add", node);
    return { kind: "pivot", node: layerNode(under), overlay: layerNode(layer.number) };
  }

  async drop(layers: readonly number[]): Promise<void> {
    // Each still refers to the one below it.
    for (const number of layers.toSorted((a, b) => b - a)) {
      const node = layerNode(number);
      for (const name of [node, `${node}-file`]) await this.#forget(name);
    }
  }

  async merge({ top, base }: { readonly top: number; readonly base: number }): Promise<void> {
    const ended = this.#qmp.waitFor(
      ({ event, data }) =>
        ["BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"].includes(event) &&
        data["device"] === mergeJob,
      mergeTimeoutMs,
      "merging the layers of a scratch disk",
    );
    ended.catch(() => undefined);
    await this.#qmp.execute("block-stream", {
      "job-id": mergeJob,
      device: layerNode(top),
      "base-node": layerNode(base),
    });
    const { data } = await ended;
    if (data["error"] === undefined) return;
    throw new ForkdError("engine_failed", `merging a scratch disk failed: ${data["error"]}`);
  }

  /** Whatever it is not, it is gone. */
  async #forget(node: string): Promise<void> {
    try {
      await this.#qmp.execute("blockdev-del", { "node-name": node });
    } catch (error) {
      const isMissing = error instanceof ForkdError && /^Failed to find node/.test(error.message);
      if (!isMissing) throw error;
    }
  }
}
