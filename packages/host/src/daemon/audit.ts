import type { FileHandle } from "node:fs/promises";
import { mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import type { FastifyInstance } from "fastify";
import type { Logger } from "../lib/log.ts";
import { onAnswered } from "./answered.ts";
import type { Principal } from "./auth.ts";
import { pathOf } from "./request-path.ts";

/** One request; the first six keys are upstream's. */
export interface AuditEntry {
  /** UTC, whole seconds: `2026-05-12T07:12:34Z`. */
  readonly ts: string;
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly latency_us: number;
  readonly ua: string;
  readonly remote: string;
  readonly principal: Principal;
  readonly request_id: string;
}

/** Takes entries without making anybody wait. */
export interface AuditSink {
  write(entry: AuditEntry): void;
}

/** Lines kept while the disk is slow; more are dropped and counted in the log. */
const queueLinesMax = 10_000;
const textBytesMax = 1024;

/** Appends lines in order, one write at a time, each write all lines that came meanwhile. */
export class AuditLog implements AuditSink, AsyncDisposable {
  readonly #file: FileHandle;
  readonly #log: Logger;
  #queue: string[] = [];
  #dropped = 0;
  #writing: Promise<void> = Promise.resolve();
  #isWriting = false;

  private constructor(file: FileHandle, log: Logger) {
    this.#file = file;
    this.#log = log;
  }

  /** Makes the directory (0700) and the file (0600) when they are missing. */
  static async open(path: string, log: Logger): Promise<AuditLog> {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    return new AuditLog(await open(path, "a", 0o600), log);
  }

  write(entry: AuditEntry): void {
    if (this.#queue.length >= queueLinesMax) {
      this.#dropped += 1;
      return;
    }
    this.#queue.push(`${JSON.stringify(entry)}\n`);
    if (!this.#isWriting) this.#writing = this.#drain();
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

/** Audits every request when it is answered, refusals too, or when its client is gone. */
export function installAudit(app: FastifyInstance, sink: AuditSink): void {
  onAnswered(app, ({ request, status, elapsedMs }) => {
    sink.write({
      ts: `${new Date().toISOString().slice(0, 19)}Z`,
      method: request.method,
      path: pathOf(request).slice(0, textBytesMax),
      status,
      latency_us: Math.round(elapsedMs * 1000),
      ua: (request.headers["user-agent"] ?? "").slice(0, textBytesMax),
      remote: request.ip,
      principal: request.principal,
      request_id: request.id,
    });
  });
}
