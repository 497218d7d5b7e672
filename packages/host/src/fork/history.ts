import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { limits, type SandboxId, type SandboxInfo, sandboxInfoSchema } from "@forkd/api";
import { replaceFile } from "../lib/atomic.ts";
import { parseState, readSmallFile } from "./record.ts";

/** Ended sandboxes that are remembered. */
export const historyMax = 1000;
const infoBytesMax = 64 * 1024;
/** A byte that is no UTF-8 is kept as a character of three. */
const logFileBytesMax = 3 * limits.logBytesMax;
/** `<milliseconds since 1970, 13 digits>-<id>.json`: names sort by the time of the end. */
const namePattern = /^(\d{13})-([A-Za-z0-9_][A-Za-z0-9_-]{0,63})\.json$/;

/** The log of what is in `name`, beside it. */
const logName = (name: string): string => name.replace(/json$/, "log");

/**
 * The ended sandboxes of one data directory, a small file each, and one more for what its VMM had
 * printed, if anything; the oldest make room.
 */
export class History {
  readonly #dir: string;
  readonly #max: number;
  /** File names by id, the oldest first. */
  readonly #names = new Map<string, string>();

  private constructor(dir: string, max: number) {
    this.#dir = dir;
    this.#max = max;
  }

  /** Makes the directory when it is missing. Only names are read. */
  static async open(dir: string, max: number = historyMax): Promise<History> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const history = new History(dir, max);
    for (const name of (await readdir(dir)).sort()) {
      const id = namePattern.exec(name)?.[2];
      if (id !== undefined) history.#names.set(id, name);
    }
    return history;
  }

  has(id: SandboxId): boolean {
    return this.#names.has(id);
  }

  /** `info.end` says when it ended. The first end of an id counts: a later one is the same again. */
  async add(info: SandboxInfo, log = ""): Promise<void> {
    if (this.#names.has(info.id)) return;
    const at = String(info.end?.at_unix_ms ?? Date.now()).padStart(13, "0");
    const name = `${at}-${info.id}.json`;
    this.#names.set(info.id, name);
    if (log !== "") await replaceFile(join(this.#dir, logName(name)), log);
    await replaceFile(join(this.#dir, name), JSON.stringify(info));
    for (const [id, oldest] of this.#names) {
      if (this.#names.size <= this.#max) break;
      this.#names.delete(id);
      await rm(join(this.#dir, oldest), { force: true });
      await rm(join(this.#dir, logName(oldest)), { force: true });
    }
  }

  /** Undefined for one that is not remembered. Throws state_corrupt. */
  async get(id: SandboxId): Promise<SandboxInfo | undefined> {
    const name = this.#names.get(id);
    return name === undefined ? undefined : await this.#read(name);
  }

  /** What its VMM had printed; undefined when nothing is kept. Throws state_corrupt. */
  async log(id: SandboxId): Promise<string | undefined> {
    const name = this.#names.get(id);
    if (name === undefined) return undefined;
    return await readSmallFile(join(this.#dir, logName(name)), logFileBytesMax);
  }

  /** The latest first; files that are damaged are left out, `forkd leaks` names them. */
  async list(): Promise<SandboxInfo[]> {
    const names = [...this.#names.values()].reverse();
    const infos = await Promise.all(names.map((name) => this.#read(name).catch(() => undefined)));
    return infos.filter((info) => info !== undefined);
  }

  async #read(name: string): Promise<SandboxInfo | undefined> {
    const path = join(this.#dir, name);
    const text = await readSmallFile(path, infoBytesMax);
    return text === undefined ? undefined : parseState(path, text, sandboxInfoSchema);
  }
}

/** The damaged files of a history, with what is wrong in each. */
export async function damagedHistory(dir: string): Promise<ReadonlyMap<string, unknown>> {
  const damaged = new Map<string, unknown>();
  const names = await readdir(dir).catch(() => []);
  for (const name of names.filter((each) => namePattern.test(each))) {
    const path = join(dir, name);
    try {
      const text = await readSmallFile(path, infoBytesMax);
      if (text !== undefined) parseState(path, text, sandboxInfoSchema);
    } catch (error) {
      damaged.set(path, error);
    }
  }
  return damaged;
}
