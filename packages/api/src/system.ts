import { z } from "zod";
import { errorTable } from "./errors.ts";

export const healthSchema = z.object({ ok: z.literal(true) });
export const versionSchema = z.object({ version: z.string(), api: z.literal("v1") });

const codes = Object.keys(errorTable);
/** The body of every answer with a status of 400 or more. */
export const problemSchema = z.object({
  error: z.string(),
  code: z.string().refine((code) => codes.includes(code)),
  hint: z.string(),
});
