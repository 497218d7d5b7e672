import { branchRequestSchema } from "./branch.ts";
import { evalEventSchema } from "./eval-stream.ts";
import { eventQuerySchema, forkdEventSchema } from "./event.ts";
import {
  execClientMessageSchema,
  execInfoSchema,
  execServerMessageSchema,
  execSubprotocol,
} from "./exec-stream.ts";
import { fileRoutes } from "./file-routes.ts";
import { lineageSchema } from "./lineage.ts";
import { logEventSchema } from "./log-event.ts";
import type { Route } from "./route.ts";
import { branchErrors, guestErrors, spawnErrors } from "./route-errors.ts";
import {
  createSandboxSchema,
  endedQuerySchema,
  evalRequestSchema,
  evalResultSchema,
  execRequestSchema,
  execResultSchema,
  logsQuerySchema,
  pongSchema,
  sandboxInfoSchema,
} from "./sandbox.ts";
import {
  compactSnapshotSchema,
  createSnapshotSchema,
  removeSnapshotQuerySchema,
  snapshotInfoDetailSchema,
  snapshotInfoSchema,
} from "./snapshot.ts";
import { healthSchema, hostFactsSchema, openApiSchema, versionSchema } from "./system.ts";

export type { Route } from "./route.ts";

export const routes = {
  health: {
    method: "GET",
    path: "/healthz",
    summary: "Whether the daemon answers",
    request: null,
    success: { status: 200, body: healthSchema },
    errors: [],
    open: true,
  },
  version: {
    method: "GET",
    path: "/version",
    summary: "The daemon's version",
    request: null,
    success: { status: 200, body: versionSchema },
    errors: [],
  },
  metrics: {
    method: "GET",
    path: "/metrics",
    summary: "Prometheus metrics",
    request: null,
    success: { status: 200, body: "text", textType: "text/plain; version=0.0.4; charset=utf-8" },
    errors: [],
  },
  hostFacts: {
    method: "GET",
    path: "/v1/host",
    summary: "Where the daemon keeps what it has, and how much room is left there",
    request: null,
    success: { status: 200, body: hostFactsSchema },
    errors: [],
  },
  openapi: {
    method: "GET",
    path: "/openapi.json",
    summary: "This API as an OpenAPI 3.1 document",
    request: null,
    success: { status: 200, body: openApiSchema },
    errors: [],
  },
  listSnapshots: {
    method: "GET",
    path: "/v1/snapshots",
    summary: "Every snapshot, one entry a tag",
    request: null,
    success: { status: 200, body: snapshotInfoSchema.array() },
    errors: [],
  },
  createSnapshot: {
    method: "POST",
    path: "/v1/snapshots",
    summary: "Boot a root image, wait until it is warm, freeze it",
    request: createSnapshotSchema,
    success: { status: 201, body: snapshotInfoSchema },
    errors: [
      "invalid_tag",
      "snapshot_exists",
      "kernel_not_found",
      "warmup_failed",
      "warmup_timeout",
      "engine_unavailable",
      "engine_failed",
      "disk_full",
      "busy",
    ],
  },
  deleteSnapshot: {
    method: "DELETE",
    path: "/v1/snapshots/{tag}",
    summary: "Remove a snapshot; one that others were made from only with cascade or force",
    request: null,
    query: removeSnapshotQuerySchema,
    success: { status: 204, body: null },
    errors: ["invalid_tag", "snapshot_not_found", "snapshot_not_ready", "snapshot_in_use"],
  },
  getSnapshotInfo: {
    method: "GET",
    path: "/v1/snapshots/{tag}/info",
    summary: "One snapshot with its chain, its dependents and its sizes",
    request: null,
    success: { status: 200, body: snapshotInfoDetailSchema },
    errors: ["invalid_tag", "snapshot_not_found", "snapshot_not_ready", "snapshot_incomplete"],
  },
  compactSnapshot: {
    method: "POST",
    path: "/v1/snapshots/{tag}/compact",
    summary: "Copy a snapshot and its ancestors into one new base",
    request: compactSnapshotSchema,
    success: { status: 200, body: snapshotInfoSchema },
    errors: [
      "invalid_tag",
      "snapshot_not_found",
      "snapshot_exists",
      "snapshot_not_ready",
      "snapshot_incomplete",
      "snapshot_corrupt",
      "disk_full",
      "busy",
    ],
  },
  getLineage: {
    method: "GET",
    path: "/v1/lineage",
    summary: "Which snapshots and live sandboxes came from which",
    request: null,
    success: { status: 200, body: lineageSchema },
    errors: [],
  },
  listSandboxes: {
    method: "GET",
    path: "/v1/sandboxes",
    summary: "Every live sandbox; with ended=true also those that ended, the latest first",
    request: null,
    query: endedQuerySchema,
    success: { status: 200, body: sandboxInfoSchema.array() },
    errors: [],
  },
  createSandboxes: {
    method: "POST",
    path: "/v1/sandboxes",
    summary: "Fork n children of a snapshot; answers when each has a proven identity of its own",
    request: createSandboxSchema,
    success: { status: 201, body: sandboxInfoSchema.array() },
    errors: spawnErrors,
  },
  getSandbox: {
    method: "GET",
    path: "/v1/sandboxes/{id}",
    summary:
      "One sandbox, also one that ended by itself; with ended=true also one that was deleted",
    request: null,
    query: endedQuerySchema,
    success: { status: 200, body: sandboxInfoSchema },
    errors: ["sandbox_not_found"],
  },
  deleteSandbox: {
    method: "DELETE",
    path: "/v1/sandboxes/{id}",
    summary: "End a sandbox, in whatever state it is; done already for one that has ended",
    request: null,
    success: { status: 204, body: null },
    errors: ["sandbox_not_found", "deadline_exceeded"],
  },
  getSandboxLogs: {
    method: "GET",
    path: "/v1/sandboxes/{id}/logs",
    summary: "The last that a sandbox's VMM printed, also of one that has ended",
    request: null,
    query: logsQuerySchema,
    success: { status: 200, body: "text" },
    errors: ["sandbox_not_found", "sandbox_ended", "too_many_requests"],
  },
  followSandboxLogs: {
    method: "GET",
    path: "/v1/sandboxes/{id}/logs/stream",
    summary: "The last that a sandbox's VMM printed, and what it prints until it ends, as events",
    request: null,
    query: logsQuerySchema,
    success: { status: 200, body: "events", event: logEventSchema },
    errors: ["sandbox_not_found", "sandbox_ended", "too_many_requests"],
  },
  pingSandbox: {
    method: "POST",
    path: "/v1/sandboxes/{id}/ping",
    summary: "Ask the guest's agent to answer",
    request: null,
    success: { status: 200, body: pongSchema },
    errors: guestErrors,
  },
  execSandbox: {
    method: "POST",
    path: "/v1/sandboxes/{id}/exec",
    summary: "Run a command in the guest",
    request: execRequestSchema,
    success: { status: 200, body: execResultSchema },
    errors: [...guestErrors, "bad_request", "exec_failed"],
  },
  streamExec: {
    method: "GET",
    path: "/v1/sandboxes/{id}/exec/stream",
    summary: "Run a command, or return to one, over a WebSocket: input, output, signals, terminal",
    request: null,
    success: { status: 101, body: null },
    errors: [...guestErrors, "upgrade_required"],
    socket: {
      subprotocol: execSubprotocol,
      client: execClientMessageSchema,
      server: execServerMessageSchema,
    },
  },
  listExecs: {
    method: "GET",
    path: "/v1/sandboxes/{id}/execs",
    summary: "The commands that were started over exec streams, the newest first",
    request: null,
    success: { status: 200, body: execInfoSchema.array() },
    errors: guestErrors,
  },
  deleteExec: {
    method: "DELETE",
    path: "/v1/sandboxes/{id}/execs/{exec_id}",
    summary: "Kill a command that was started over an exec stream, and forget it",
    request: null,
    success: { status: 204, body: null },
    errors: [...guestErrors, "exec_not_found"],
  },
  ...fileRoutes,
  streamEvents: {
    method: "GET",
    path: "/v1/events",
    summary: "What happens to sandboxes and snapshots, as server-sent events",
    request: null,
    query: eventQuerySchema,
    success: { status: 200, body: "events", event: forkdEventSchema },
    errors: ["too_many_requests"],
  },
  branchSandbox: {
    method: "POST",
    path: "/v1/sandboxes/{id}/branch",
    summary: "Make a snapshot of a running sandbox, which runs on",
    request: branchRequestSchema,
    success: { status: 201, body: snapshotInfoSchema, mayBeWriting: true },
    errors: branchErrors,
  },
  evalSandbox: {
    method: "POST",
    path: "/v1/sandboxes/{id}/eval",
    summary: "Evaluate code in the guest's warm interpreter",
    request: evalRequestSchema,
    success: { status: 200, body: evalResultSchema },
    errors: [...guestErrors, "bad_request"],
  },
  streamEval: {
    method: "POST",
    path: "/v1/sandboxes/{id}/eval/stream",
    summary: "Evaluate code; what it prints, as it comes, then its result as server-sent events",
    request: evalRequestSchema,
    success: { status: 200, body: "events", event: evalEventSchema },
    errors: [...guestErrors, "bad_request"],
  },
} as const satisfies Record<string, Route>;

export type RouteName = keyof typeof routes;

/** The rows that are WebSockets. */
export type SocketName = {
  [N in RouteName]: (typeof routes)[N] extends { readonly socket: object } ? N : never;
}[RouteName];

type Rows = typeof routes;

/** The rows whose request or answer is a stream. */
export type StreamName = {
  [N in RouteName]: Rows[N]["request"] extends "bytes"
    ? N
    : Rows[N]["success"]["body"] extends "bytes" | "events"
      ? N
      : never;
}[RouteName];

/** Narrows a name to that of a row whose request or answer is a stream. */
export function isStreamName(name: RouteName): name is StreamName {
  const { request, success }: Route = routes[name];
  return request === "bytes" || success.body === "bytes" || success.body === "events";
}

/** The rows that one request and one answer are all of. */
export type CallName = Exclude<RouteName, SocketName | StreamName>;

// Object.keys forgets that the table's keys are its names.
const routeNames = Object.keys(routes) as RouteName[];

/** Narrows a name to that of a row with a plain request and answer. */
export function isCallName(name: RouteName): name is CallName {
  return !("socket" in routes[name]) && !isStreamName(name);
}

export const callNames: readonly CallName[] = routeNames.filter(isCallName);
export const streamNames: readonly StreamName[] = routeNames.filter(isStreamName);
