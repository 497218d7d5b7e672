import { z } from "zod";
import { errorTable } from "./errors.ts";

export const healthSchema = z.object({ ok: z.literal(true) });
export const versionSchema = z.object({ version: z.string(), api: z.literal("v1") });
/** Where a daemon keeps what it has, as the daemon itself sees it. */
export const hostFactsSchema = z.object({
  version: z.string(),
  pid: z.int(),
  data_dir: z.string(),
  snapshots_dir: z.string(),
  /** What somebody without privileges may still write. */
  snapshots_free_bytes: z.number(),
  snapshots_total_bytes: z.number(),
});
export type HostFacts = Readonly<z.infer<typeof hostFactsSchema>>;
/** The answer of `GET /openapi.json`, as far as a client may rely on it. */
export const openApiSchema = z.looseObject({
  openapi: z.literal("3.1.0"),
  info: z.looseObject({ title: z.string(), version: z.string() }),
  paths: z.record(z.string(), z.record(z.string(), z.unknown())),
});

const codes = Object.keys(errorTable);
/** The body of every answer with a status of 400 or more. */
export const problemSchema = z.object({
  error: z.string(),
  code: z.string().refine((code) => codes.includes(code)),
  hint: z.string(),
});
