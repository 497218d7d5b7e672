import { z } from "zod";

/** One snapshot or live sandbox, and what it came from. */
export const lineageNodeSchema = z.object({
  kind: z.enum(["snapshot", "sandbox"]),
  /** The snapshot's tag or the sandbox's id. */
  name: z.string(),
  /** The tag of the snapshot that it was made from; null for a snapshot with RAM of its own. */
  parent: z.string().nullable(),
  /** How far from the root of its tree. */
  level: z.int(),
  /** The snapshot's status or the sandbox's state. */
  status: z.string(),
  /** Of a snapshot: whether this host can fork it; `warning` says why not. */
  bootable: z.boolean().optional(),
  created_at_unix: z.int(),
  /** Of a branch: the sandbox that it was taken of, or `compact:TAG`. */
  branched_from: z.string().optional(),
  /** Of a snapshot: what its own memory file takes on disk. */
  memory_physical_bytes: z.int().optional(),
  warning: z.string().optional(),
});
export type LineageNode = z.infer<typeof lineageNodeSchema>;

/** `GET /v1/lineage`: every tree, each node directly behind its parent and its elder siblings. */
export const lineageSchema = z.object({ nodes: lineageNodeSchema.array() });
export type Lineage = z.infer<typeof lineageSchema>;
