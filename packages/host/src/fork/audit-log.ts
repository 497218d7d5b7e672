import type { FileHandle } from "node:fs/promises";
import { mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import type { Attestation, ErrorCode } from "@forkd/api";
import type { Logger } from "../lib/log.ts";

/**
 * Who asked: `token` proved to know it, `local` was let in without, `none` was refused, and `cli`
 * worked in its own process.
 */
export type Principal = "token" | "local" | "none" | "cli";

/** One thing done to one sandbox: a line of its own, beside that of the request. */
export interface OperationEntry {
  /** UTC with milliseconds. */
  readonly ts: string;
  readonly operation: "spawn" | "kill" | "branch";
  /** `ok`, or the code of the failure: then no sandbox of the operation is left. */
  readonly outcome: "ok" | ErrorCode;
  readonly sandbox_id?: string;
  /** What it was forked from, or what was made of it. */
  readonly snapshot_tag?: string;
  /** What the guest proved before it was opened. */
  readonly identity?: Attestation | null;
  readonly principal: Principal;
  readonly remote: string;
  readonly request_id: string | null;
}

/** Takes entries without making anybody wait. */
export interface AuditSink<Entry extends object> {
  write(entry: Entry): void;
}

/** Lines kept while the disk is slow; more are dropped and counted in the log. */
const queueLinesMax = 10_000;
/** Appends lines in order, one write at a time, each write all lines that came meanwhile. */
export class AuditLog implements AuditSink<object>, AsyncDisposable {
  readonly #path: string;
  #file: FileHandle;
  readonly #log: Logger;
  #queue: string[] = [];
  #dropped = 0;
  #writing: Promise<void> = Promise.resolve();
  #isWriting = false;

  private constructor(path: string, file: FileHandle, log: Logger) {
    this.#path = path;
    this.#file = file;
    this.#log = log;
  }

  /** Makes the directory (0700) and the file (0600) when they are missing. */
  static async open(path: string, log: Logger): Promise<AuditLog> {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    return new AuditLog(path, await open(path, "a", 0o600), log);
  }

  write(entry: object): void {
    if (this.#queue.length >= queueLinesMax) {
      this.#dropped += 1;
      return;
    }
    this.#queue.push(`${JSON.stringify(entry)}\n`);
    if (!this.#isWriting) this.#writing = this.#drain();
  }

  /** Goes on in the file that has the log's name by now: after a rotation, a new one. */
  async reopen(): Promise<void> {
    const file = await open(this.#path, "a", 0o600);
    const before = this.#file;
    this.#file = file;
    await this.#writing;
    await before.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing;
    await this.#file.close();
  }

  async #drain(): Promise<void> {
    this.#isWriting = true;
    while (this.#queue.length > 0) {
      const lines = this.#queue;
      this.#queue = [];
      await this.#append(lines);
    }
    this.#isWriting = false;
  }

  async #append(lines: readonly string[]): Promise<void> {
    try {
      await this.#file.appendFile(lines.join(""));
    } catch (error) {
      this.#dropped += lines.length;
      this.#log.error("the audit log cannot be written", { cause: error });
    }
    if (this.#dropped === 0) return;
    this.#log.error("audit entries were lost", { count: this.#dropped });
    this.#dropped = 0;
  }
}
