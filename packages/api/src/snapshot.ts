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
  pause_ms: z.number().optional(),
  diff_ms: z.number().optional(),
  diff_physical_bytes: z.int().optional(),
  diff_logical_bytes: z.int().optional(),
  warning: z.string().optional(),
  status: snapshotStatusSchema,
  bootable: z.boolean(),
  engine: engineNameSchema.optional(),
  isolation: isolationTierSchema.optional(),
  memory_mib: z.int().optional(),
  memory_physical_bytes: z.int().optional(),
  image: z.string().optional(),
});
export type SnapshotInfo = z.infer<typeof snapshotInfoSchema>;

/** `POST /v1/snapshots`: boot a root image with a kernel, wait, freeze. */
export const createSnapshotSchema = z.object({
  tag: snapshotTagSchema,
  kernel: z.string().min(1).max(4096),
  rootfs: z.string().min(1).max(4096),
  rw: z.boolean().default(false),
  tap: z.string().max(15).nullish(),
  boot_wait_secs: z.int().min(0).max(limits.bootWaitMaxSecs).default(10),
});
export type CreateSnapshot = z.infer<typeof createSnapshotSchema>;
