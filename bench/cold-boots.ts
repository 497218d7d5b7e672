import { ForkdError, limits, parseSnapshotTag, toForkdError } from "@forkd/api";
import type { DataPaths } from "@forkd/host/config/data-paths.ts";
import type { BakeImage, ForkService } from "@forkd/host/fork/service.ts";
import { layout } from "@forkd/host/store/layout.ts";
import { readManifest } from "@forkd/host/store/manifest.ts";
import { type Spread, spread } from "./stats.ts";
import { warmImports } from "./task.ts";

export interface ColdBootOrder {
  readonly service: ForkService;
  readonly paths: DataPaths;
  readonly image: BakeImage;
  readonly memoryMib: number;
  readonly vcpus: number;
  readonly count: number;
}

/** Cold boots of the same guest until the interpreter has the imports; the eval is not included. */
export interface ColdBoots {
  readonly count: number;
  readonly booted: number;
  readonly concurrency: number;
  /** From the start of the VM to a warm interpreter. */
  readonly warm_ms: Spread | null;
  /** All of `count`, boot to warm, at that concurrency; snapshots and clean-up left out. */
  readonly total_ms: number;
  readonly failures: readonly string[];
}

const warmTimeoutMs = 300_000;

/** Boots one guest cold through the same door as a bake, and forgets its snapshot. */
async function bootOnce(order: ColdBootOrder, index: number): Promise<number> {
  const tag = parseSnapshotTag(`bench-cold-${process.pid}-${index}`);
  const warm = {
    runtime: "python",
    imports: warmImports,
    command: null,
    ready: null,
    timeoutMs: warmTimeoutMs,
  } as const;
  const { image, memoryMib, vcpus } = order;
  const request = { tag, image, kernel: null, memoryMib, vcpus, warm, replace: false };
  await order.service.bake(request, () => undefined);
  try {
    const { manifest } = await readManifest(layout.snapshotDir(order.paths, tag));
    if (manifest.bake === null) throw new ForkdError("internal", `${tag} was not baked`);
    return manifest.bake.boot_ms + manifest.bake.warm_ms;
  } finally {
    await order.service.deleteSnapshot(tag);
  }
}

/**
 * The total counts boot and warm-up only, spread over the workers, so a bake's freezing and writing
 * are not held against cold boots.
 */
export async function measureColdBoots(order: ColdBootOrder): Promise<ColdBoots> {
  const concurrency = Math.min(order.count, limits.concurrentBakesMax);
  const failures: string[] = [];
  const warm: number[] = [];
  const indices = Array.from({ length: order.count }, (_, index) => index).values();
  const busy = await Promise.all(
    Array.from({ length: concurrency }, async () => {
      let busyMs = 0;
      for (const index of indices) {
        try {
          const bootMs = await bootOnce(order, index);
          warm.push(bootMs);
          busyMs += bootMs;
        } catch (error) {
          failures.push(toForkdError(error).message);
        }
      }
      return busyMs;
    }),
  );
  return {
    count: order.count,
    booted: warm.length,
    concurrency,
    warm_ms: spread(warm),
    total_ms: Math.max(0, ...busy),
    failures,
  };
}
