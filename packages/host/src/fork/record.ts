import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type SandboxInfo, sandboxInfoSchema } from "@forkd/api";
import { z } from "zod";
import { replaceFile } from "../lib/atomic.ts";
import type { ProcessIdentity } from "../linux/proc.ts";

const recordFile = "sandbox.json";
const recordBytesMax = 256 * 1024;
/** Each attach that a crash cut off leaves one more token that the agent may be listening for. */
export const tokensMax = 8;

const identitySchema = z.object({ pid: z.int(), startTicks: z.int(), bootId: z.string() });
const recordSchema = z.object({
  format: z.literal(1),
  info: sandboxInfoSchema,
  process: identitySchema,
  attach_tokens: z
    .array(z.string().regex(/^[0-9a-f]{32}$/))
    .min(1)
    .max(tokensMax),
});

/** All that a later owner needs to take a sandbox over, in its work directory. */
export interface SandboxRecord {
  readonly info: SandboxInfo;
  readonly process: ProcessIdentity;
  /** What the agent may be listening for, the likeliest last. */
  readonly attachTokens: readonly string[];
}

/** VMs do not survive a crash of the host, so the record need only survive one of the daemon. */
export async function writeRecord(workDir: string, record: SandboxRecord): Promise<void> {
  const { info, process, attachTokens } = record;
  const text = JSON.stringify({ format: 1, info, process, attach_tokens: attachTokens });
  await replaceFile(join(workDir, recordFile), text);
}

/** Undefined when there is none that can be trusted: the sandbox was never finished. */
export async function readRecord(workDir: string): Promise<SandboxRecord | undefined> {
  const text = await readFile(join(workDir, recordFile), "utf8").catch(() => undefined);
  if (text === undefined || text.length > recordBytesMax) return undefined;
  try {
    const { info, process, attach_tokens } = recordSchema.parse(JSON.parse(text));
    return { info, process, attachTokens: attach_tokens };
  } catch {
    return undefined;
  }
}
