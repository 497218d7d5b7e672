import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import {
  ForkdError,
  limits,
  type SandboxEnd,
  type SandboxInfo,
  sandboxEndSchema,
  sandboxInfoSchema,
} from "@forkd/api";
import { z } from "zod";
import type { NumberedLayer } from "../engine/engine.ts";
import { isErrno } from "../lib/atomic.ts";
import type { ProcessIdentity } from "../linux/proc.ts";
import { type Resource, resourceSchema } from "./resources.ts";

export const recordFile = "sandbox.json";
const recordFormat = 2;
const recordBytesMax = 256 * 1024;
/** More resources than one sandbox ever takes. */
const resourcesMax = 32;
/** Each attach that a crash cut off leaves one more token that the agent may be listening for. */
export const tokensMax = 8;

export const processIdentitySchema = z.object({
  pid: z.int(),
  startTicks: z.int(),
  bootId: z.string(),
});

const layerSchema = z.object({
  number: z.int().min(0),
  file: z.string().regex(/^\/[^\0]+$/),
  format: z.enum(["raw", "qcow2"]),
});

const recordSchema = z.object({
  format: z.literal(recordFormat),
  phase: z.enum(["starting", "running", "ending"]),
  outlives: z.boolean(),
  boot_id: z.string(),
  info: sandboxInfoSchema,
  snapshot_sha256: z.string().regex(/^[0-9a-f]{64}$/),
  resources: z.array(resourceSchema).max(resourcesMax),
  disk_layers: z.array(layerSchema).max(2 * limits.scratchLayersMax),
  next_layer: layerSchema.nullable(),
  process: processIdentitySchema.nullable(),
  attach_tokens: z.array(z.string().regex(/^[0-9a-f]{32}$/)).max(tokensMax),
  end: sandboxEndSchema.nullable(),
});

/** All that a later owner needs to take a sandbox over, or to undo it; in its work directory. */
export interface SandboxRecord {
  /** `starting` and `ending` ones are undone by whoever comes next, `running` ones adopted. */
  readonly phase: "starting" | "running" | "ending";
  /** Whether it lives on after its owner; a command line's does not. */
  readonly outlives: boolean;
  /** The boot of the host in which it was made: it is gone in any other. */
  readonly bootId: string;
  readonly info: SandboxInfo;
  /** Of the manifest of the snapshot that it was forked from: a tag may be given again. */
  readonly snapshotSha256: string;
  /** Written before each is taken, in that order. */
  readonly resources: readonly Resource[];
  /** Of its scratch disk, oldest first; empty without one. */
  readonly diskLayers: readonly NumberedLayer[];
  /** What a branch is about to put on them: whether it has, only the VMM knows. */
  readonly nextLayer: NumberedLayer | null;
  /** Null before it runs; until then its VMM is known by its current directory. */
  readonly process: ProcessIdentity | null;
  /** What the agent may be listening for, the likeliest last. */
  readonly attachTokens: readonly string[];
  /** Why it ends; null before it does. */
  readonly end: SandboxEnd | null;
}

export function renderRecord(record: SandboxRecord): string {
  const { phase, outlives, info, resources, process, end } = record;
  return JSON.stringify({
    format: recordFormat,
    phase,
    outlives,
    boot_id: record.bootId,
    info,
    snapshot_sha256: record.snapshotSha256,
    resources,
    disk_layers: record.diskLayers,
    next_layer: record.nextLayer,
    process,
    attach_tokens: record.attachTokens,
    end,
  });
}

/** Undefined when there is none. Throws state_corrupt with the file and what is wrong in it. */
export async function readRecord(workDir: string): Promise<SandboxRecord | undefined> {
  const path = join(workDir, recordFile);
  const text = await readSmallFile(path, recordBytesMax);
  return text === undefined ? undefined : parseRecord(path, text);
}

/** Throws state_corrupt. */
export function parseRecord(path: string, text: string): SandboxRecord {
  const record = parseState(path, text, recordSchema);
  const { phase, outlives, info, resources, process, end } = record;
  return {
    phase,
    outlives,
    bootId: record.boot_id,
    info,
    snapshotSha256: record.snapshot_sha256,
    resources,
    diskLayers: record.disk_layers,
    nextLayer: record.next_layer,
    process,
    attachTokens: record.attach_tokens,
    end,
  };
}

/** Throws state_corrupt with the file and what is wrong in it. */
export function parseState<T>(path: string, text: string, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ForkdError("state_corrupt", `${path} is damaged: it is no JSON`, { cause: error });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const field = issue?.path.join(".") ?? "";
  throw new ForkdError("state_corrupt", `${path} is damaged: ${field}: ${issue?.message}`);
}

/** Undefined when there is none. Throws state_corrupt when it is longer than any of ours. */
export async function readSmallFile(path: string, bytesMax: number): Promise<string | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    if (isErrno(error, "ENOENT") || isErrno(error, "ENOTDIR")) return undefined;
    throw error;
  }
  await using file = handle;
  const buffer = Buffer.alloc(bytesMax + 1);
  const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
  if (bytesRead <= bytesMax) return buffer.toString("utf8", 0, bytesRead);
  throw new ForkdError("state_corrupt", `${path} is damaged: it is over ${bytesMax} bytes`);
}
