import type { z } from "zod";
import { ForkdError } from "./errors.ts";
import type { Route, RouteName, routes } from "./routes.ts";

/** The names in a path's braces: `"id"` of `/v1/sandboxes/{id}/exec`. */
type ParamName<Path extends string> = Path extends `${string}{${infer Name}}${infer Rest}`
  ? Name | ParamName<Rest>
  : never;

type RouteOf<N extends RouteName> = (typeof routes)[N];

/** The path parameters of a route, `{}` when it has none. */
export type RouteParams<N extends RouteName> = Readonly<
  Record<ParamName<RouteOf<N>["path"]>, string>
>;

/** A route's query after validation, defaults filled in; `{}` when it takes none. */
export type RouteQuery<N extends RouteName> =
  RouteOf<N> extends {
    readonly query: infer Query extends z.ZodType;
  }
    ? Readonly<z.output<Query>>
    : Readonly<Record<never, never>>;

/** What a client sends: defaults may be left out. `undefined` when the route takes no body. */
export type RouteRequest<N extends RouteName> = RouteOf<N>["request"] extends z.ZodType
  ? z.input<RouteOf<N>["request"]>
  : undefined;

/** What a handler gets: validated, defaults filled in. `undefined` when there is no body. */
export type RouteBody<N extends RouteName> = RouteOf<N>["request"] extends z.ZodType
  ? z.output<RouteOf<N>["request"]>
  : undefined;

/** What a route answers. `undefined` for an empty answer, and for a stream. */
export type RouteResult<N extends RouteName> = RouteOf<N>["success"]["body"] extends z.ZodType
  ? z.output<RouteOf<N>["success"]["body"]>
  : RouteOf<N>["success"]["body"] extends "text"
    ? string
    : undefined;

/**
 * A route's path with its parameters percent-encoded into it. Throws bad_request for a parameter
 * that is missing, empty or a dot segment, which every URL parser would take out of the path.
 */
export function routePath(route: Route, params: Readonly<Record<string, string>>): string {
  return route.path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = params[name] ?? "";
    if (!/^\.{0,2}$/.test(value)) return encodeURIComponent(value);
    throw new ForkdError(
      "bad_request",
      `${JSON.stringify(value)} cannot be the ${name} of a request`,
    );
  });
}

/** The `?name=value&...` of a request, empty when there is nothing to say. */
export function routeQuery(query: Readonly<Record<string, unknown>>): string {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) words.append(name, String(value));
  }
  return words.size === 0 ? "" : `?${words}`;
}
