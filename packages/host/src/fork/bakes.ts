import { ForkdError, type SnapshotInfo } from "@forkd/api";
import { importRootImage } from "../image/import.ts";
import { bake } from "./bake.ts";
import type { ForkDeps } from "./deps.ts";
import type { BakeImage, BakeRequest, Progress } from "./service.ts";

/** Is told of a bake's begin, and sees its end. */
export interface BakeWatch {
  whileBaking<T>(tag: string, work: (onBegin: () => void) => Promise<T>): Promise<T>;
}

/** The bakes in flight: one a tag, and all ended on request. Who drives them bounds their number. */
export class Bakes {
  readonly #deps: ForkDeps;
  readonly #watch: BakeWatch;
  readonly #running = new Map<string, Promise<unknown>>();
  readonly #abort = new AbortController();

  constructor(deps: ForkDeps, watch: BakeWatch) {
    this.#deps = deps;
    this.#watch = watch;
  }

  /** Throws snapshot_exists for a tag that is being baked. */
  async run(request: BakeRequest, progress: Progress): Promise<SnapshotInfo> {
    if (this.#running.has(request.tag)) {
      throw new ForkdError("snapshot_exists", `snapshot '${request.tag}' is being baked`, {
        hint: "wait for it, or choose another tag",
      });
    }
    const running = this.#watch.whileBaking(request.tag, (onBegin) =>
      bake(this.#deps, { request, progress, onBegin, signal: this.#abort.signal }),
    );
    this.#running.set(request.tag, running);
    try {
      return await running;
    } finally {
      this.#running.delete(request.tag);
    }
  }

  /** Throws image_not_found, image_invalid, disk_full. */
  async importImage(path: string): Promise<BakeImage> {
    const image = await importRootImage(this.#deps.paths, path, this.#abort.signal);
    const { env, user, workdir } = image.config;
    return { path: image.path, sha256: image.sha256, ref: image.ref, env, user, workdir };
  }

  /** Ends every bake; returns when what they had made is gone. */
  async abortAll(): Promise<void> {
    this.#abort.abort(new ForkdError("busy", "forkd is shutting down"));
    await Promise.allSettled(this.#running.values());
  }
}
