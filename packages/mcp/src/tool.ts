import type { z } from "zod";

/** A JSON object, as arguments come in and structured results go out. */
export type JsonObject = { readonly [key: string]: unknown };

/** What a client may tell its user before the call. */
export interface ToolAnnotations {
  readonly readOnlyHint: boolean;
  readonly destructiveHint: boolean;
  readonly idempotentHint: boolean;
  /** False: a tool reaches the daemon and its guests, not the world. */
  readonly openWorldHint: false;
}

/** One tool of the server. */
export interface Tool {
  readonly name: string;
  readonly description: string;
  readonly input: z.ZodObject;
  readonly output: z.ZodObject;
  readonly annotations: ToolAnnotations;
  /** `args` have passed `input`; the result must pass `output`. Throws ForkdError. */
  readonly run: (args: JsonObject, signal: AbortSignal) => Promise<JsonObject>;
}
