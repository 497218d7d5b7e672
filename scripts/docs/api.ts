import {
  errorTable,
  isStreamName,
  jsonSchema,
  type Route,
  type RouteName,
  routeErrors,
  routes,
  schemaNames,
} from "@forkd/api";
import { z } from "zod";
import { code, page, table } from "./markdown.ts";

type Io = "input" | "output";

/** The parts of JSON Schema that our schemas use. */
const partSchema = z.looseObject({
  type: z.union([z.string(), z.array(z.string())]).optional(),
  properties: z.record(z.string(), z.unknown()).optional(),
  required: z.array(z.string()).optional(),
  items: z.unknown().optional(),
  anyOf: z.array(z.unknown()).optional(),
  oneOf: z.array(z.unknown()).optional(),
  enum: z.array(z.unknown()).optional(),
  const: z.unknown().optional(),
  default: z.unknown().optional(),
  minimum: z.number().optional(),
  maximum: z.number().optional(),
  maxItems: z.number().optional(),
  maxLength: z.number().optional(),
  pattern: z.string().optional(),
});
type Part = z.infer<typeof partSchema>;

function typeText(value: unknown): string {
  const part = partSchema.parse(value ?? {});
  if (part.anyOf !== undefined) return part.anyOf.map(typeText).join(" or ");
  if (part.enum !== undefined) return part.enum.map((each) => JSON.stringify(each)).join(" or ");
  if (part.const !== undefined) return JSON.stringify(part.const);
  if (part.type === "array") return `array of ${typeText(part.items)}`;
  return [part.type ?? "any"].flat().join(" or ");
}

/** JSON Schema states the range of every integer; only ours is worth a word. */
function rangeText({ minimum, maximum }: Part): string {
  const low =
    minimum !== undefined && minimum > Number.MIN_SAFE_INTEGER ? `at least ${minimum}` : "";
  const high =
    maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER ? `at most ${maximum}` : "";
  return [low, high].filter((text) => text !== "").join(", ");
}

function notes(part: Part, isRequired: boolean, io: Io): string {
  const given = part.default === undefined ? "" : `default ${code(JSON.stringify(part.default))}`;
  const words = [
    io === "input" && isRequired ? "required" : "",
    io === "output" && !isRequired ? "left out when there is none" : "",
    given,
    rangeText(part),
    part.maxItems === undefined ? "" : `at most ${part.maxItems} items`,
    part.maxLength === undefined ? "" : `at most ${part.maxLength} characters`,
    part.pattern === undefined ? "" : `matches ${code(part.pattern)}`,
  ];
  return words.filter((word) => word !== "").join("; ");
}

/** The fields of an object; of one that is one of several, those of each. */
function fieldTable(schema: z.ZodType, io: Io): string {
  const part = partSchema.parse(jsonSchema(schema, io));
  if (part.oneOf === undefined) return tableOf(part, io);
  return part.oneOf.map((each) => tableOf(partSchema.parse(each), io)).join("\n\n");
}

function tableOf({ properties = {}, required = [] }: Part, io: Io): string {
  const rows = Object.entries(properties).map(([name, value]) => [
    code(name),
    typeText(value),
    notes(partSchema.parse(value), required.includes(name), io),
  ]);
  return table(["Field", "Type", "Notes"], rows);
}

/** A link to the schema's own section; an array is named after its element. */
function schemaLink(schema: z.ZodType): string {
  const name = schemaNames.get(schema);
  if (name !== undefined) return `[${name}](#${name.toLowerCase()})`;
  if (schema instanceof z.ZodArray && schema.element instanceof z.ZodType) {
    return `an array of ${schemaLink(schema.element)}`;
  }
  throw new Error("a schema of the route table has no name in schemaNames");
}

function successText({ success }: Route): string {
  if (success.status === 101) return "101, a WebSocket: [exec.md](exec.md) has its messages";
  if (success.body === null) return `${success.status}, empty`;
  if (success.body === "text") return `${success.status}, text`;
  if (success.body === "events") {
    const of = success.event === undefined ? "" : ` of ${schemaLink(success.event)}`;
    return `${success.status}, server-sent events${of}`;
  }
  if (success.body === "bytes") {
    return `${success.status}${success.mayBePartial === true ? " or 206" : ""}, bytes`;
  }
  return `${success.status}, ${schemaLink(success.body)}`;
}

function socketLines({ socket }: Route): string[] {
  if (socket === undefined) return [];
  const { subprotocol, client, server } = socket;
  return [
    `- Subprotocol: ${code(subprotocol)}`,
    `- Text messages: ${schemaLink(client)} and ${schemaLink(server)}`,
    `- SDK: ${code("sandbox.spawn()")}, ${code("sandbox.attach()")}`,
  ];
}

function requestText({ request }: Route): string {
  if (request === null) return "no body";
  return request === "bytes" ? "bytes, of any type" : schemaLink(request);
}

function queryText({ query }: Route): string[] {
  const names = Object.keys(query?.shape ?? {});
  return names.length === 0 ? [] : [`- Query: ${names.map(code).join(", ")}`];
}

function sdkCall(name: RouteName): string {
  return isStreamName(name) ? `client.open("${name}")` : `client.${name}()`;
}

function routeSection(name: RouteName, route: Route): string {
  const errors = routeErrors(route).map((each) => `${code(each)} (${errorTable[each].status})`);
  const lines = [
    `- Request: ${requestText(route)}`,
    ...queryText(route),
    `- Answer: ${successText(route)}`,
    `- Failures: ${errors.join(", ")}`,
    ...(route.open === true ? ["- Needs no token"] : []),
    ...(route.socket === undefined ? [`- SDK: ${code(sdkCall(name))}`] : socketLines(route)),
  ];
  return `### ${route.method} ${route.path}\n\n${route.summary}.\n\n${lines.join("\n")}`;
}

/** docs/api.md: every route and every schema. */
export function renderApiDocs(): string {
  // Object.entries forgets that the table's keys are its names.
  const entries = Object.entries(routes) as [RouteName, Route][];
  const requests = new Set<unknown>(
    entries.flatMap(([, { request, socket }]) => [request, socket?.client]),
  );
  const schemas = [...schemaNames].map(([schema, name]) => {
    return `### ${name}\n\n${fieldTable(schema, requests.has(schema) ? "input" : "output")}`;
  });
  return page("API", "packages/api/src/routes.ts", [
    "The daemon listens on `127.0.0.1:8889` unless told otherwise. Bodies are JSON " +
      "(`Content-Type: application/json`); unknown fields are ignored. With a token file, every " +
      "route but `/healthz` needs `Authorization: Bearer TOKEN`. Every answer carries " +
      "`X-Request-Id`, which the daemon's log and audit log repeat. Failures look like " +
      "[Problem](#problem); their codes are in [errors.md](errors.md), the bounds in " +
      "[limits.md](limits.md). `GET /openapi.json` is the same as an OpenAPI 3.1 document.",
    "## Routes",
    ...entries.map(([name, route]) => routeSection(name, route)),
    "## Schemas",
    ...schemas,
  ]);
}
