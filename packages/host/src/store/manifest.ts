import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import {
  branchModeSchema,
  engineNameSchema,
  ForkdError,
  isolationTierSchema,
  limits,
  snapshotTagSchema,
} from "@forkd/api";
import { z } from "zod";
import { isErrno, writeFileAtomic } from "../lib/atomic.ts";
import { snapshotFiles } from "./layout.ts";

export const manifestFormat = "forkd-snapshot";
export const manifestVersion = 2;

const mib = 1024 * 1024;

/** A manifest is small; more is not ours. */
export const manifestBytesMax: number = 1024 * 1024;

const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);
const bytesSchema = z.int().min(0);

/** What every version has. Paths are never in it: names are fixed, images by hash. */
const commonSchema = z.object({
  format: z.literal(manifestFormat),
  tag: snapshotTagSchema,
  created_at_unix: z.int().min(0),
  engine: z.object({
    name: engineNameSchema,
    version: z.string().max(64),
    isolation: isolationTierSchema,
  }),
  machine: z.object({
    accel: z.enum(["kvm", "tcg"]),
    cpu: z.string().max(256),
    vcpus: z.int().min(1).max(64),
    memory_mib: z.int().min(1).max(65_536),
    /** Those that were made before there were network cards have none. */
    nic: z.boolean().default(false),
  }),
  kernel: z.object({ vmlinuz_sha256: sha256Schema, initrd_sha256: sha256Schema }),
  rootfs: z.object({ sha256: sha256Schema, ref: z.string().max(4096) }),
  agent: z.object({
    protocol: z.literal(1),
    version: z.string().max(64),
    runtime: z.enum(["python", "node", "none"]),
    /** What the frozen agent listens for, hex. */
    attach_token: z.string().regex(/^[0-9a-f]{32}$/),
    generation: z.int().min(0),
  }),
});

const bakeSchema = z.object({
  boot_ms: z.number(),
  warm_ms: z.number(),
  freeze_ms: z.number(),
  detail: z.string().max(4096),
});

/** How a snapshot came from a sandbox, or from another snapshot: then `mode` is `compact`. */
const branchSchema = z.object({
  /** A sandbox's id, or `compact:TAG`. */
  branched_from: z.string().max(128),
  mode: z.enum([...branchModeSchema.options, "compact"]),
  pause_ms: z.number().nullable(),
  diff_ms: z.number().nullable(),
  /** Of the changed pages: what they take on disk, and how much they are. */
  diff_physical_bytes: bytesSchema.nullable(),
  diff_logical_bytes: bytesSchema.nullable(),
  warning: z.string().max(4096).nullable(),
});

const memoryFileSchema = z.object({ size: z.int().min(1), physical_bytes: bytesSchema });
const hashedFileSchema = z.object({ size: z.int().min(1), sha256: sha256Schema });

/** The layers' files are named by their places, oldest first: `scratch.0` is a whole disk. */
const scratchSchema = z
  .object({
    size_mib: z.int().min(1).max(limits.scratchMaxMib),
    layers: z
      .array(z.object({ format: z.enum(["raw", "qcow2"]), size: z.int().min(1) }))
      .min(1)
      .max(limits.scratchLayersMax),
  })
  .refine(
    // What engines give a guest is the file, whatever is said to who asks for so much of a disk.
    ({ size_mib, layers: [disk] }) => disk?.format === "raw" && disk.size === size_mib * mib,
    { path: ["layers", 0], error: "is no raw disk of size_mib MiB" },
  );

export type ScratchFacts = z.infer<typeof scratchSchema>;

const version1Schema = commonSchema.extend({
  version: z.literal(1),
  files: z.object({ vmstate: z.object({ size: z.int().min(1) }), memory: memoryFileSchema }),
  bake: bakeSchema,
});

const version2Schema = commonSchema.extend({
  version: z.literal(manifestVersion),
  parent: z.object({ tag: snapshotTagSchema, manifest_sha256: sha256Schema }).nullable(),
  files: z.object({
    vmstate: hashedFileSchema,
    memory: memoryFileSchema.extend({ data_bytes: bytesSchema }),
    index: hashedFileSchema,
  }),
  bake: bakeSchema.nullable(),
  branch: branchSchema.nullable(),
  scratch: scratchSchema.nullable(),
});

const anyVersionSchema = z.discriminatedUnion("version", [version1Schema, version2Schema]);
type Version1 = z.infer<typeof version1Schema>;
type Version2 = z.infer<typeof version2Schema>;

/**
 * `snapshot.json`, docs/store-format.md. What version 1 did not record is null: there its memory is
 * a base without an index, and nothing of it can be verified but sizes.
 */
export interface Manifest extends Omit<Version2, "version" | "files"> {
  readonly version: 1 | 2;
  readonly files: {
    readonly vmstate: { readonly size: number; readonly sha256: string | null };
    readonly memory: Version2["files"]["memory"];
    readonly index: Version2["files"]["index"] | null;
  };
}

/** A manifest as it is written now. */
export type NewManifest = Version2;

/** What the maker of a snapshot knows of it; the store adds names, files and lineage. */
export type SnapshotFacts = Pick<
  Version2,
  "engine" | "machine" | "kernel" | "rootfs" | "agent" | "bake" | "branch" | "scratch"
>;

export interface StoredManifest {
  readonly manifest: Manifest;
  /** Of the file's bytes: what children record of their parent. */
  readonly sha256: string;
}

/** The size of the guest's RAM. */
export function memoryBytesOf({ machine }: Pick<Manifest, "machine">): number {
  return machine.memory_mib * 1024 * 1024;
}

/** Throws snapshot_incomplete when the directory has no manifest that we can trust. */
export async function readManifest(dir: string): Promise<StoredManifest> {
  const path = join(dir, snapshotFiles.manifest);
  let bytes: Buffer;
  try {
    const { size } = await stat(path);
    if (size > manifestBytesMax)
      throw incomplete(`${path} has more than ${manifestBytesMax} bytes`);
    bytes = await readFile(path);
  } catch (error) {
    if (error instanceof ForkdError) throw error;
    const why = isErrno(error, "ENOENT") ? "is missing" : `cannot be read: ${error}`;
    throw incomplete(`${path} ${why}`, error);
  }
  const manifest = parseManifest(bytes.toString("utf8"), path);
  return { manifest, sha256: createHash("sha256").update(bytes).digest("hex") };
}

/** Throws snapshot_incomplete that says what is wrong in `path`. */
export function parseManifest(text: string, path: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw incomplete(`${path} is not JSON`, error);
  }
  if (isUpstreams(value)) {
    const message = `${path} is upstream's: its guest has no agent that makes a child unique`;
    throw new ForkdError("snapshot_incompatible", message, {
      hint: "bake its image here: forkd from-image REF --tag TAG",
    });
  }
  const parsed = anyVersionSchema.safeParse(value);
  if (!parsed.success) throw incomplete(`${path}: ${z.prettifyError(parsed.error)}`);
  return parsed.data.version === 1 ? upgrade(parsed.data) : parsed.data;
}

/** Upstream's `snapshot.json` has the paths of its files, and no format. */
function isUpstreams(value: unknown): boolean {
  if (typeof value !== "object" || value === null || "format" in value) return false;
  const { vmstate, memory }: { vmstate?: unknown; memory?: unknown } = value;
  return typeof vmstate === "string" && typeof memory === "string";
}

function upgrade(old: Version1): Manifest {
  const { vmstate, memory } = old.files;
  return {
    ...old,
    parent: null,
    branch: null,
    scratch: null,
    files: {
      vmstate: { size: vmstate.size, sha256: null },
      memory: { ...memory, data_bytes: memory.physical_bytes },
      index: null,
    },
  };
}

/** Writes `snapshot.json` and returns the hash of its bytes. */
export async function writeManifest(dir: string, manifest: NewManifest): Promise<string> {
  const text = `${JSON.stringify(version2Schema.parse(manifest), null, 2)}\n`;
  await writeFileAtomic(join(dir, snapshotFiles.manifest), text);
  return createHash("sha256").update(text).digest("hex");
}

function incomplete(message: string, cause?: unknown): ForkdError {
  return new ForkdError("snapshot_incomplete", message, { cause });
}
