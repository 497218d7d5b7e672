import { z } from "zod";
import { branchRequestSchema } from "./branch.ts";
import type { ErrorCode } from "./errors.ts";
import { errorTable } from "./errors.ts";
import { evalEventSchema } from "./eval-stream.ts";
import { forkdEventSchema } from "./event.ts";
import { execClientMessageSchema, execInfoSchema, execServerMessageSchema } from "./exec-stream.ts";
import { fileInfoSchema, fileListSchema, makeDirectorySchema, renameFileSchema } from "./file.ts";
import { lineageSchema } from "./lineage.ts";
import { logEventSchema } from "./log-event.ts";
import type { Route } from "./routes.ts";
import { routes } from "./routes.ts";
import {
  createSandboxSchema,
  evalRequestSchema,
  evalResultSchema,
  execRequestSchema,
  execResultSchema,
  pongSchema,
  sandboxInfoSchema,
} from "./sandbox.ts";
import {
  compactSnapshotSchema,
  createSnapshotSchema,
  snapshotInfoDetailSchema,
  snapshotInfoSchema,
} from "./snapshot.ts";
import {
  healthSchema,
  hostFactsSchema,
  openApiSchema,
  problemSchema,
  versionSchema,
} from "./system.ts";

/** Names of the schemas that other programs may want to generate types for. */
export const schemaNames: ReadonlyMap<z.ZodType, string> = new Map<z.ZodType, string>([
  [healthSchema, "Health"],
  [versionSchema, "Version"],
  [openApiSchema, "OpenApi"],
  [hostFactsSchema, "HostFacts"],
  [snapshotInfoSchema, "SnapshotInfo"],
  [snapshotInfoDetailSchema, "SnapshotInfoDetail"],
  [createSnapshotSchema, "CreateSnapshot"],
  [compactSnapshotSchema, "CompactSnapshot"],
  [lineageSchema, "Lineage"],
  [sandboxInfoSchema, "SandboxInfo"],
  [createSandboxSchema, "CreateSandbox"],
  [branchRequestSchema, "BranchRequest"],
  [execRequestSchema, "ExecRequest"],
  [execResultSchema, "ExecResult"],
  [execInfoSchema, "ExecInfo"],
  [execClientMessageSchema, "ExecClientMessage"],
  [execServerMessageSchema, "ExecServerMessage"],
  [evalRequestSchema, "EvalRequest"],
  [evalResultSchema, "EvalResult"],
  [evalEventSchema, "EvalEvent"],
  [pongSchema, "Pong"],
  [forkdEventSchema, "Event"],
  [logEventSchema, "LogEvent"],
  [fileInfoSchema, "FileInfo"],
  [fileListSchema, "FileList"],
  [makeDirectorySchema, "MakeDirectory"],
  [renameFileSchema, "RenameFile"],
  [problemSchema, "Problem"],
]);

/** A JSON document or a part of one. */
export type JsonObject = { readonly [key: string]: unknown };

/** Failures that every route may answer; open routes skip the token's. */
const commonErrors: readonly ErrorCode[] = ["bad_request", "forbidden", "internal"];
const bodyErrors: readonly ErrorCode[] = ["payload_too_large", "unsupported_media_type"];

/** Every code that a route may answer, without doubles, in the order of their statuses. */
export function routeErrors(route: Route): readonly ErrorCode[] {
  const codes = new Set<ErrorCode>([...commonErrors, ...route.errors]);
  if (route.open !== true) codes.add("unauthorized");
  if (route.request !== null) for (const code of bodyErrors) codes.add(code);
  if (route.path.includes("{id}")) codes.add("invalid_id");
  return [...codes].sort((a, b) => errorTable[a].status - errorTable[b].status);
}

/**
 * One schema as JSON Schema 2020-12. `input` is what a client sends (defaults are optional),
 * `output` what it gets. Objects stay open: both sides ignore fields that they do not know.
 */
export function jsonSchema(schema: z.ZodType, io: "input" | "output"): JsonObject {
  const { $schema: _, ...body } = z.toJSONSchema(schema, {
    io,
    override: ({ jsonSchema: part }) => {
      if (part.additionalProperties === false) delete part.additionalProperties;
    },
  });
  return body;
}

function schemaReference(schema: z.ZodType, io: "input" | "output"): JsonObject {
  const name = schemaNames.get(schema);
  if (name !== undefined) return { $ref: `#/components/schemas/${name}` };
  if (schema instanceof z.ZodArray && schema.element instanceof z.ZodType) {
    return { type: "array", items: schemaReference(schema.element, io) };
  }
  return jsonSchema(schema, io);
}

function content(schema: z.ZodType, io: "input" | "output"): JsonObject {
  return { "application/json": { schema: schemaReference(schema, io) } };
}

/** A binary body has no schema (OpenAPI 3.1). */
const bytes: JsonObject = { "application/octet-stream": {} };

/** OpenAPI 3.1 has no words for the parts of a stream; this is an extension of ours. */
function eventTalk({ event }: Route["success"]): JsonObject {
  return event === undefined ? {} : { "x-event": schemaReference(event, "output") };
}

function successAnswer({ success }: Route): JsonObject {
  if (success.status === 101) return { description: "A WebSocket from here on" };
  if (success.body === null) return { description: "Done; the answer is empty" };
  if (success.body === "text") {
    return { description: "Text", content: { "text/plain": { schema: { type: "string" } } } };
  }
  if (success.body === "bytes") return { description: "The bytes", content: bytes };
  if (success.body === "events") {
    return { description: "Events", content: { "text/event-stream": eventTalk(success) } };
  }
  return { description: "Done", content: content(success.body, "output") };
}

function successAnswers(route: Route): JsonObject {
  const { status, mayBeWriting, mayBePartial } = route.success;
  const answers = { [String(status)]: successAnswer(route) };
  if (mayBePartial === true) {
    return { ...answers, "206": { ...successAnswer(route), description: "The range asked for" } };
  }
  if (mayBeWriting !== true) return answers;
  const begun = { ...successAnswer(route), description: "Begun; its `status` is `writing`" };
  return { ...answers, "202": begun };
}

function errorAnswers(route: Route): JsonObject {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of routeErrors(route)) {
    const { status } = errorTable[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const answers = [...byStatus].map(([status, codes]): [string, JsonObject] => [
    String(status),
    { description: codes.join(", "), content: content(problemSchema, "output") },
  ]);
  return Object.fromEntries(answers);
}

function pathParameters(route: Route): JsonObject[] {
  return [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
}

function queryParameters(route: Route): JsonObject[] {
  return Object.entries(route.query?.shape ?? {}).map(([name, schema]) => ({
    name,
    in: "query",
    required: false,
    // As the handler gets it: a flag is a boolean, whose texts true and false every client knows.
    schema: jsonSchema(schema, "output"),
  }));
}

/** OpenAPI has no words for WebSockets; this is an extension of ours. */
function socketTalk({ subprotocol, client, server }: NonNullable<Route["socket"]>): JsonObject {
  return {
    subprotocol,
    client: schemaReference(client, "input"),
    server: schemaReference(server, "output"),
  };
}

function requestBody({ request }: Route): JsonObject {
  if (request === null) return {};
  const body = request === "bytes" ? bytes : content(request, "input");
  return { requestBody: { required: true, content: body } };
}

function operation(name: string, route: Route): JsonObject {
  const parameters = [...pathParameters(route), ...queryParameters(route)];
  return {
    operationId: name,
    summary: route.summary,
    ...(route.open === true ? { security: [] } : {}),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...requestBody(route),
    ...(route.socket === undefined ? {} : { "x-websocket": socketTalk(route.socket) }),
    responses: { ...successAnswers(route), ...errorAnswers(route) },
  };
}

function paths(): z.infer<typeof openApiSchema>["paths"] {
  const byPath: Record<string, Record<string, JsonObject>> = {};
  for (const [name, route] of Object.entries(routes)) {
    byPath[route.path] = {
      ...byPath[route.path],
      [route.method.toLowerCase()]: operation(name, route),
    };
  }
  return byPath;
}

function componentSchemas(): JsonObject {
  const rows = Object.values<Route>(routes);
  const requests = new Set<unknown>(
    rows.flatMap(({ request, socket }) => [request, socket?.client]),
  );
  const entries = [...schemaNames].map(([schema, name]): [string, JsonObject] => [
    name,
    jsonSchema(schema, requests.has(schema) ? "input" : "output"),
  ]);
  return Object.fromEntries(entries);
}

/** The whole API as an OpenAPI 3.1 document; `version` is the daemon's. */
export function openApiDocument(version: string): z.infer<typeof openApiSchema> {
  return {
    openapi: "3.1.0",
    info: { title: "forkd", version, license: { name: "Apache-2.0", identifier: "Apache-2.0" } },
    security: [{ bearer: [] }],
    paths: paths(),
    components: {
      securitySchemes: { bearer: { type: "http", scheme: "bearer" } },
      schemas: componentSchemas(),
    },
  };
}
