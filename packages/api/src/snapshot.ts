import { z } from "zod";
import { snapshotTagSchema } from "./ids.ts";
import { limits } from "./limits.ts";

export const engineNameSchema = z.enum(["qemu", "firecracker"]);
export type EngineName = z.infer<typeof engineNameSchema>;

/** `vm`: hardware virtualisation. `vm-emulated`: a full machine in software, slower, same walls. */
export const isolationTierSchema = z.enum(["vm", "vm-emulated"]);
export type IsolationTier = z.infer<typeof isolationTierSchema>;

export const snapshotStatusSchema = z.enum(["writing", "ready", "failed"]);

/** One snapshot as lists show it. Absent optionals are omitted, never null (upstream's rule). */
export const snapshotInfoSchema = z.object({
  tag: z.string(),
  dir: z.string(),
  created_at_unix: z.int(),
  branched_from: z.string().optional(),
  /** Whole milliseconds, rounded up: upstream's clients take no fraction. */
  pause_ms: z.int().optional(),
  /** How long the guest stood, by the engine's own events. */
  pause_us: z.int().optional(),
  diff_ms: z.int().optional(),
  diff_physical_bytes: z.int().optional(),
  diff_logical_bytes: z.int().optional(),
  warning: z.string().optional(),
  status: snapshotStatusSchema,
  bootable: z.boolean(),
  engine: engineNameSchema.optional(),
  isolation: isolationTierSchema.optional(),
  memory_mib: z.int().optional(),
  /** The guest's RAM. */
  memory_logical_bytes: z.int().optional(),
  /** What this snapshot's own memory file takes on disk: of a link, the changed pages. */
  memory_physical_bytes: z.int().optional(),
  /** Links between it and its base: 0 for a base. */
  chain_depth: z.int().optional(),
  parent_tag: z.string().optional(),
  /** The disk that its children write to; absent when they write to their memory. */
  scratch_mib: z.int().optional(),
  image: z.string().optional(),
});
export type SnapshotInfo = z.infer<typeof snapshotInfoSchema>;

/** `GET /v1/snapshots/{tag}/info`: upstream's fields, and those of the list. */
export const snapshotInfoDetailSchema = snapshotInfoSchema.extend({
  memory_logical_bytes: z.int(),
  memory_physical_bytes: z.int(),
  /** The sum of the extents of its memory file. */
  memory_data_bytes: z.int(),
  vmstate_bytes: z.int(),
  /** The hash of the parent's manifest, which stands for all of it. */
  parent_content_hash: z.string().optional(),
  chain_depth: z.int(),
  /** The base first. */
  ancestors: z.string().array(),
  dependents: z.string().array(),
});
export type SnapshotInfoDetail = z.infer<typeof snapshotInfoDetailSchema>;

/** `DELETE /v1/snapshots/{tag}`: what happens to the snapshots that were made from it. */
export const removeSnapshotQuerySchema = z.object({
  /** Remove them too. */
  cascade: z.stringbool().default(false),
  /** Leave them, though they cannot be forked any more. */
  force: z.stringbool().default(false),
});

/** `POST /v1/snapshots/{tag}/compact` */
export const compactSnapshotSchema = z.object({ to: snapshotTagSchema });

/** `POST /v1/snapshots`: boot a root image with a kernel, wait, freeze. */
export const createSnapshotSchema = z.object({
  tag: snapshotTagSchema,
  kernel: z.string().min(1).max(4096),
  rootfs: z.string().min(1).max(4096),
  rw: z.boolean().default(false),
  tap: z.string().max(15).nullish(),
  boot_wait_secs: z.int().min(0).max(limits.bootWaitMaxSecs).default(10),
  /** Size of the disk that its children write to; without, they write to their memory. */
  scratch_mib: z.int().min(limits.scratchMinMib).max(limits.scratchMaxMib).nullish(),
});
export type CreateSnapshot = z.infer<typeof createSnapshotSchema>;
