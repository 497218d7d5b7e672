import type { z } from "zod";
import type { ErrorCode } from "./errors.ts";

/** How a route's success looks. `body: null` means an empty answer. */
interface Success {
  readonly status: 101 | 200 | 201 | 202 | 204;
  /** `bytes` and `events` are streams: application/octet-stream, text/event-stream. */
  readonly body: z.ZodType | null | "text" | "bytes" | "events";
  /** Of `events`: what the `data` of each says, as JSON. */
  readonly event?: z.ZodType;
  /** Of a `text`: its Content-Type, for clients that expect one; plain UTF-8 when absent. */
  readonly textType?: string;
  /** Answered with 206 instead when the request has a Range that can be met. */
  readonly mayBePartial?: true;
  /** Answered with 202 instead when the body's `status` is `writing`: the work goes on. */
  readonly mayBeWriting?: true;
}

/** What is said once a request has become a WebSocket (RFC 6455). */
interface SocketTalk {
  readonly subprotocol: string;
  /** The text messages of each side; binary ones are described where the schemas are. */
  readonly client: z.ZodType;
  readonly server: z.ZodType;
}

/** One row of the API. Server, client, OpenAPI, MCP and docs derive from it. */
export interface Route {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** Path with `{name}` parameters. */
  readonly path: `/${string}`;
  readonly summary: string;
  /** `bytes` is a stream of any type. */
  readonly request: z.ZodType | null | "bytes";
  /** What may stand behind the path's `?`, each value a text; no parameters when absent. */
  readonly query?: z.ZodObject;
  readonly success: Success;
  /** Failures beyond those that any route may answer. */
  readonly errors: readonly ErrorCode[];
  /** Answered without a token. */
  readonly open?: true;
  /** Present for a WebSocket: the method is GET, and success is the upgrade. */
  readonly socket?: SocketTalk;
}
