import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import type { SandboxInfo, SnapshotInfo } from "@forkd/api";
import { replaceFile } from "../lib/atomic.ts";
import type { Logger } from "../lib/log.ts";

/** What the view shows; asked for when it is written. */
export interface StateSource {
  listSnapshots(): Promise<SnapshotInfo[]>;
  listSandboxes(): SandboxInfo[];
}

/**
 * `state.json`, for people and their scripts: what the daemon has, by tag and by id, sorted.
 * Nothing reads it back. Changes that come while it is written are in one next write.
 */
export class StateView {
  readonly #path: string;
  readonly #source: StateSource;
  readonly #log: Logger;
  #stale = false;
  #writing: Promise<void> | undefined;

  constructor(path: string, source: StateSource, log: Logger) {
    this.#path = path;
    this.#source = source;
    this.#log = log;
  }

  /** Call after every change; costs nothing while a write is under way. */
  readonly changed = (): void => {
    this.#stale = true;
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  };

  /** Resolves when the file shows the last change. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    while (this.#stale) {
      this.#stale = false;
      try {
        await mkdir(dirname(this.#path), { recursive: true, mode: 0o755 });
        await replaceFile(this.#path, await this.#render());
      } catch (error) {
        // The view is no record: a full disk must not end a sandbox.
        this.#log.warn("the state file could not be written", { path: this.#path, error });
      }
    }
  }

  async #render(): Promise<string> {
    const snapshots = byKey(await this.#source.listSnapshots(), ({ tag }) => tag);
    const sandboxes = byKey(this.#source.listSandboxes(), ({ id }) => id);
    return `${JSON.stringify({ snapshots, sandboxes, workspaces: {} }, null, 2)}\n`;
  }
}

function byKey<T>(items: readonly T[], keyOf: (item: T) => string): Record<string, T> {
  const sorted = items.toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  return Object.fromEntries(sorted.map((item) => [keyOf(item), item]));
}
