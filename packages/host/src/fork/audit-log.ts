import type { Attestation, ErrorCode } from "@forkd/api";
import type { Logger } from "../lib/log.ts";
import { formatHead } from "./audit-chain.ts";
import { AuditFile } from "./audit-file.ts";

/**
 * Who asked: `token` proved to know it, `local` was let in without, `none` was refused, and `cli`
 * worked in its own process.
 */
export type Principal = "token" | "local" | "none" | "cli";

/** One thing done to one sandbox or snapshot: a line of its own, beside that of the request. */
export interface OperationEntry {
  /** UTC with milliseconds. */
  readonly ts: string;
  readonly operation:
    | ("spawn" | "kill" | "branch")
    | ("bake" | "delete" | "compact" | "pack" | "unpack")
    | ("push" | "pull");
  /** `ok`, or the code of the failure: then no sandbox of the operation is left. */
  readonly outcome: "ok" | ErrorCode;
  readonly sandbox_id?: string;
  /** What it was forked from, or what was made of it. */
  readonly snapshot_tag?: string;
  /** Where a pack went to or came from, without the secrets that an address may carry. */
  readonly address?: string;
  /** Of that pack, hex. */
  readonly sha256?: string;
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

/** Entries kept while the disk is slow; more are dropped and counted. */
const queueEntriesMax = 10_000;

/** What the log says of itself when it can be written again: so many entries are not in it. */
interface LossEntry {
  readonly ts: string;
  readonly audit: "lost";
  readonly count: number;
}

/**
 * Appends entries in order, one write at a time, each write all entries that came meanwhile. A disk
 * that refuses stops nobody: what is lost is told in the daemon's log at once, and in the audit log
 * itself by a line of its own once that can be written again.
 */
export class AuditLog implements AuditSink<object>, AsyncDisposable {
  readonly #path: string;
  readonly #file: AuditFile;
  readonly #log: Logger;
  #queue: object[] = [];
  /** Entries that are in no line, nor counted by one. */
  #lost = 0;
  /** Everything that touches the file, one after the other; never rejects. */
  #work: Promise<void> = Promise.resolve();
  #isDraining = false;

  private constructor(path: string, file: AuditFile, log: Logger) {
    this.#path = path;
    this.#file = file;
    this.#log = log;
  }

  /** Makes the directory (0700) and the file (0600) when they are missing. */
  static async open(path: string, log: Logger): Promise<AuditLog> {
    const audit = new AuditLog(path, await AuditFile.open(path), log);
    audit.#tellHead();
    return audit;
  }

  write(entry: object): void {
    if (this.#queue.length >= queueEntriesMax) {
      this.#lost += 1;
      return;
    }
    this.#queue.push(entry);
    if (this.#isDraining) return;
    this.#isDraining = true;
    this.#work = this.#work.then(() => this.#drain());
  }

  /** Goes on in the file that has the log's name by now: after a rotation, a new one. */
  async reopen(): Promise<void> {
    const refreshed = this.#work.then(() => this.#file.refresh());
    this.#work = refreshed.catch(() => undefined);
    await refreshed;
    this.#tellHead();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#work;
    this.#tellHead();
    await this.#file.close();
  }

  /** In another log: whoever keeps that elsewhere can prove that no last entries were removed. */
  #tellHead(): void {
    const { path, head } = { path: this.#path, head: formatHead(this.#file.head) };
    this.#log.info("the audit log's chain", { path, head });
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const entries = this.#queue;
      this.#queue = [];
      await this.#append(entries);
    }
    this.#isDraining = false;
  }

  async #append(entries: readonly object[]): Promise<void> {
    const lost = this.#lost;
    const loss: LossEntry = { ts: new Date().toISOString(), audit: "lost", count: lost };
    try {
      await this.#file.append(lost === 0 ? entries : [loss, ...entries]);
    } catch (cause) {
      this.#lost += entries.length;
      this.#log.error("the audit log cannot be written", { path: this.#path, cause });
      this.#log.error("audit entries were lost", { count: this.#lost });
      return;
    }
    this.#lost -= lost;
    if (lost > 0) this.#log.warn("the audit log is written again", { path: this.#path, lost });
  }
}
