import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { engineNameSchema, ForkdError, isolationTierSchema, snapshotTagSchema } from "@forkd/api";
import { z } from "zod";
import { isErrno, writeFileAtomic } from "../lib/atomic.ts";
import { snapshotFiles } from "./layout.ts";

export const manifestFormat = "forkd-snapshot";
export const manifestVersion = 1;

/** A manifest is small; more is not ours. */
const manifestBytesMax = 1024 * 1024;

const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);

/** `snapshot.json`, docs/store-format.md. Paths are never in it: names are fixed, images by hash. */
export const manifestSchema = z.object({
  format: z.literal(manifestFormat),
  version: z.literal(manifestVersion),
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
    memory_mib: z.int().min(1),
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
  files: z.object({
    vmstate: z.object({ size: z.int().min(1) }),
    memory: z.object({ size: z.int().min(1), physical_bytes: z.int().min(0) }),
  }),
  bake: z.object({
    boot_ms: z.number(),
    warm_ms: z.number(),
    freeze_ms: z.number(),
    detail: z.string().max(4096),
  }),
});
export type Manifest = z.infer<typeof manifestSchema>;

/** Throws snapshot_incomplete when the directory has no manifest that we can trust. */
export async function readManifest(dir: string): Promise<Manifest> {
  const path = join(dir, snapshotFiles.manifest);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const why = isErrno(error, "ENOENT") ? "is missing" : `cannot be read: ${error}`;
    throw new ForkdError("snapshot_incomplete", `${path} ${why}`, { cause: error });
  }
  if (text.length > manifestBytesMax) {
    throw new ForkdError("snapshot_incomplete", `${path} is larger than ${manifestBytesMax} bytes`);
  }
  return parseManifest(text, path);
}

/** Throws snapshot_incomplete that says what is wrong in `path`. */
export function parseManifest(text: string, path: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ForkdError("snapshot_incomplete", `${path} is not JSON`, { cause: error });
  }
  const parsed = manifestSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new ForkdError("snapshot_incomplete", `${path}: ${z.prettifyError(parsed.error)}`);
}

export async function writeManifest(dir: string, manifest: Manifest): Promise<void> {
  const text = `${JSON.stringify(manifestSchema.parse(manifest), null, 2)}\n`;
  await writeFileAtomic(join(dir, snapshotFiles.manifest), text);
}
