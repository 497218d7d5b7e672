export type { ErrorCode, Problem } from "@forkd/api";
export { ForkdError } from "@forkd/api";
export type { CallOptions, ClientOptions, RouteMethods } from "./client.ts";
export { Client } from "./client.ts";
