import type { FastifyInstance } from "fastify";
import type { AuditSink, OperationEntry, Principal } from "../fork/audit-log.ts";
import { onAnswered } from "./answered.ts";
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

/** Takes the entries of a daemon: requests, and what they did. */
export type DaemonAudit = AuditSink<AuditEntry | OperationEntry>;

const textBytesMax = 1024;

/** Audits every request when it is answered, refusals too, or when its client is gone. */
export function installAudit(app: FastifyInstance, sink: AuditSink<AuditEntry>): void {
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
