import { readFile } from "node:fs/promises";
import type { z } from "zod";

/** A record says what one transfer has done: some names and numbers. */
const recordBytesMax = 8192;

/**
 * What an earlier run has written of a transfer. Undefined without a record that can be read: the
 * transfer begins anew then, which is always right.
 */
export async function readRecord<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  try {
    const text = await readFile(path, "utf8");
    return text.length > recordBytesMax ? undefined : schema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
