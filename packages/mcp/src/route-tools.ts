import { type CallName, callNames, jsonSchema, type Route, routes } from "@forkd/api";
import type { CallControl, Client } from "@forkd/sdk";
import { z } from "zod";
import { cutOutputs } from "./outputs.ts";
import { type RouteToolSpec, routeToolSpecs } from "./specs.ts";
import type { JsonObject, Tool, ToolAnnotations } from "./tool.ts";

/** Where a tool's arguments go in a request. */
interface Places {
  /** Path parameter by argument: `sandbox_id` is the `{id}` of a sandbox's path. */
  readonly params: ReadonlyMap<string, string>;
  readonly query: ReadonlySet<string>;
  readonly body: ReadonlySet<string>;
}

/** A tool for every row of the table that is no stream, new rows included. */
export function routeTools(client: Client): Tool[] {
  return callNames.filter(isTool).map((name) => routeTool(client, name));
}

/** System routes are for operators. */
function isTool(name: CallName): boolean {
  return routes[name].path.startsWith("/v1/");
}

/** Throws when two of the route's names would be one argument: a mistake in the table. */
function routeTool(client: Client, routeName: CallName): Tool {
  const route: Route = routes[routeName];
  const spec: RouteToolSpec = routeToolSpecs[routeName] ?? {};
  const places = placesOf(route);
  return {
    name: spec.name ?? snakeCase(routeName),
    description: spec.description ?? `${route.summary}.`,
    input: inputOf(route, places, spec),
    output: outputOf(route),
    annotations: annotationsOf(route, spec),
    run: async (args, signal) => {
      const answer = await send(client, routeName, { ...requestOf(places, args), signal });
      return resultOf(route, args, answer);
    },
  };
}

function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function placesOf(route: Route): Places {
  const paths = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => name);
  const sandbox = route.path.startsWith("/v1/sandboxes/");
  const params = new Map(
    paths.map((name) => [sandbox && name === "id" ? "sandbox_id" : name, name]),
  );
  const query = new Set(Object.keys(route.query?.shape ?? {}));
  const body = new Set(Object.keys(bodyShape(route)));
  if (
    params.size + query.size + body.size !==
    new Set([...params.keys(), ...query, ...body]).size
  ) {
    throw new TypeError(`${route.path}: two arguments of its tool would have one name`);
  }
  return { params, query, body };
}

function bodyShape({ request }: Route): z.ZodObject["shape"] {
  return request instanceof z.ZodObject ? request.shape : {};
}

function inputOf(route: Route, places: Places, spec: RouteToolSpec): z.ZodObject {
  const path = [...places.params.keys()].map((name) => [name, z.string().min(1)]);
  const query = Object.entries(route.query?.shape ?? {}).map(([name, field]) => [
    name,
    asArgument(field),
  ]);
  const shape = {
    ...Object.fromEntries(path),
    ...Object.fromEntries(query),
    ...bodyShape(route),
  };
  return z.object({ ...shape, ...spec.fields?.(shape) });
}

/** A query's flag is a text in a URL, and a boolean to whoever calls a tool. */
function asArgument(field: z.core.$ZodType): z.ZodType {
  // The table's fields are made by zod's classic interface, like all of its schemas.
  const schema = field as z.ZodType;
  const isFlag = jsonSchema(schema, "output")["type"] === "boolean";
  return isFlag ? z.boolean().default(false) : schema.optional();
}

function outputOf({ success, path }: Route): z.ZodObject {
  if (success.body instanceof z.ZodObject) return success.body;
  if (success.body instanceof z.ZodType) return z.object({ result: success.body });
  if (success.body === "text") return z.object({ text: z.string() });
  const params = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => [name, z.string()]);
  return z.object({ ...Object.fromEntries(params), [doneWord(path)]: z.literal(true) });
}

/** The word of upstream's server for a sandbox, and one like it for the rest. */
function doneWord(path: string): string {
  if (path.includes("/files")) return "done";
  return path.startsWith("/v1/sandboxes/") ? "killed" : "deleted";
}

function annotationsOf({ method }: Route, { isReadOnly }: RouteToolSpec): ToolAnnotations {
  return {
    readOnlyHint: method === "GET" || isReadOnly === true,
    destructiveHint: method === "DELETE",
    idempotentHint: method !== "POST",
    openWorldHint: false,
  };
}

interface LooseRequest {
  readonly params: Readonly<Record<string, string>>;
  readonly query: JsonObject;
  readonly body: JsonObject;
}

function requestOf({ params, query, body }: Places, args: JsonObject): LooseRequest {
  const pick = (names: ReadonlySet<string>): JsonObject =>
    Object.fromEntries(Object.entries(args).filter(([name]) => names.has(name)));
  const path = [...params].map(([argument, name]) => [name, String(args[argument])]);
  return { params: Object.fromEntries(path), query: pick(query), body: pick(body) };
}

type LooseCall = (name: CallName, request: LooseRequest & CallControl) => Promise<unknown>;

async function send(
  client: Client,
  name: CallName,
  request: LooseRequest & CallControl,
): Promise<unknown> {
  // The arguments have passed the schemas that the call's own types are derived from.
  const call = client.call.bind(client) as LooseCall;
  return await call(name, request);
}

function resultOf(route: Route, args: JsonObject, answer: unknown): JsonObject {
  if (typeof answer === "string") return { text: answer };
  if (Array.isArray(answer)) return { result: answer };
  // The client has checked the answer against the route's schema, which is an object's.
  if (answer !== undefined) return cutOutputs(answer as JsonObject);
  const params = [...placesOf(route).params].map(([argument, name]) => [name, args[argument]]);
  return { ...Object.fromEntries(params), [doneWord(route.path)]: true };
}
