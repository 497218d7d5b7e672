/** Pushes and pulls whose packs are any bytes at all. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { type PullOrder, type PullReport, pull } from "@forkd/host/fork/pull.ts";
import { type PushOrder, type PushReport, push } from "@forkd/host/fork/push.ts";
import { parsePullTarget, parseRemote } from "@forkd/host/remote/address.ts";

export const sha256Of = (data: Uint8Array): string =>
  createHash("sha256").update(data).digest("hex");

export interface Pulled {
  readonly report: PullReport;
  /** The bytes that were given to be unpacked. */
  readonly bytes: Buffer;
}

export type PullWords = Partial<
  Pick<PullOrder, "sha256" | "env" | "signal" | "unpack" | "onBytes">
> & { readonly hub?: string };

export type PushWords = Partial<Pick<PushOrder, "env" | "force" | "signal" | "onBytes">>;

/** One data directory that packs go out of and come into. */
export class Transfers {
  readonly notices: string[] = [];
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** With a directory of its own in `dir`. */
  static async in(dir: string): Promise<Transfers> {
    return new Transfers(await mkdtemp(join(dir, "run-")));
  }

  get paths() {
    return resolveDataPaths({ FORKD_DATA_DIR: join(this.#dir, "data") }, 1);
  }

  /** A file of random bytes, as a pack's are. */
  async makeFile(name: string, size: number): Promise<{ path: string; bytes: Buffer }> {
    const bytes = randomBytes(size);
    const path = join(this.#dir, name);
    await writeFile(path, bytes);
    return { path, bytes };
  }

  push(file: string, to: string, more: PushWords = {}): Promise<PushReport> {
    return push({
      paths: this.paths,
      source: { file },
      to: parseRemote(to),
      force: false,
      pack: () => assert.fail("it is a pack already"),
      env: {},
      signal: AbortSignal.timeout(60_000),
      onBytes: () => undefined,
      onNotice: (text) => this.notices.push(text),
      ...more,
    });
  }

  async pull(from: string, words: PullWords = {}): Promise<Pulled> {
    const { hub, ...more } = words;
    const target = parsePullTarget(from);
    let bytes: Buffer | undefined;
    const report = await pull({
      paths: this.paths,
      from: target.kind === "hub" ? { ...target, hub: new URL(hub ?? "") } : target,
      tag: null,
      force: false,
      sha256: null,
      unpack: async (order) => {
        assert.ok("file" in order.from);
        bytes = await readFile(order.from.file);
        return { tag: "t", snapshots: [], reused: [], warnings: [] } as never;
      },
      env: {},
      signal: AbortSignal.timeout(60_000),
      onBytes: () => undefined,
      onNotice: (text) => this.notices.push(text),
      ...more,
    });
    return { report, bytes: bytes ?? assert.fail("nothing was unpacked") };
  }

  /** What stopped pulls have left. */
  async partials(): Promise<string[]> {
    const names = await readdir(join(this.paths.cacheDir, "pulls"));
    return names.filter((name) => name.endsWith(".part"));
  }
}
