import { randomUUID } from "node:crypto";
import { type ErrorCode, errorTable } from "@forkd/api";
import type { FastifyInstance } from "fastify";
import type { AuditSink, OperationEntry, Principal } from "../fork/audit-log.ts";
import { onAnswered } from "./answered.ts";
import { pathOf } from "./request-path.ts";
import type { SocketRefusal, SocketRefusals } from "./socket-refusals.ts";

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
  /** `ok`, or the code of the failure that was answered; `client_gone` when nobody was there. */
  readonly outcome: "ok" | ErrorCode;
}

declare module "fastify" {
  interface FastifyRequest {
    /** How it was answered, as far as that is known; set where failures become answers. */
    outcome: AuditEntry["outcome"];
  }
}

/** Takes the entries of a daemon: requests, and what they did. */
export type DaemonAudit = AuditSink<AuditEntry | OperationEntry>;

const textBytesMax = 1024;

/** In the place of what could not be read. */
const unread = "-";

/**
 * Audits every request when it is answered, refusals too, or when its client is gone; and what was
 * refused before it was one.
 */
export function installAudit(
  app: FastifyInstance,
  sink: AuditSink<AuditEntry>,
  refusals: SocketRefusals,
): void {
  app.decorateRequest("outcome", "ok");
  refusals.onRefused((refusal) => sink.write(entryOf(refusal)));
  onAnswered(app, ({ request, status, elapsedMs }) => {
    const isGone = status === errorTable.client_gone.status && request.outcome === "ok";
    sink.write({
      ts: timestamp(),
      method: request.method,
      path: pathOf(request).slice(0, textBytesMax),
      status,
      latency_us: Math.round(elapsedMs * 1000),
      ua: (request.headers["user-agent"] ?? "").slice(0, textBytesMax),
      remote: request.ip,
      principal: request.principal,
      request_id: request.id,
      outcome: isGone ? "client_gone" : request.outcome,
    });
  });
}

function entryOf({ error, method, target, remote }: SocketRefusal): AuditEntry {
  return {
    ts: timestamp(),
    method: method ?? unread,
    path: (target ?? unread).slice(0, textBytesMax),
    status: error.status,
    latency_us: 0,
    ua: "",
    remote,
    principal: "none",
    request_id: randomUUID(),
    outcome: error.code,
  };
}

function timestamp(): string {
  return `${new Date().toISOString().slice(0, 19)}Z`;
}
