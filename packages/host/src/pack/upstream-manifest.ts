import { limits, snapshotTagSchema } from "@forkd/api";
import { z } from "zod";

/** The manifests of upstream's packs, version 1 (one snapshot) and 2 (a chain). */

const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);
const textSchema = z.string().max(4096);

/** What a snapshot of upstream's may hold, in the order in which it is packed. */
export const upstreamFiles = ["snapshot.json", "vmstate", "rootfs.ext4", "memory.bin"] as const;
export type UpstreamFile = (typeof upstreamFiles)[number];

const fileSchema = z.object({
  path: z.enum(upstreamFiles),
  size: z.int().min(0),
  sha256: sha256Schema,
});

const filesSchema = fileSchema
  .array()
  .refine((files) => new Set(files.map(({ path }) => path)).size === files.length, {
    error: "declares a file twice",
  })
  .refine(
    (files) => ["vmstate", "memory.bin"].every((name) => files.some(({ path }) => path === name)),
    { error: "has no vmstate or no memory.bin" },
  );

/** The root image, which is in no pack but in a file beside it. */
const rootfsSchema = z.object({
  /** Where it was on the host that made the pack. Nothing is ever written there. */
  target_path: textSchema,
  sha256: sha256Schema,
  size: z.int().min(1),
});

const common = {
  description: textSchema.optional(),
  base_image: textSchema.optional(),
  created_at: textSchema,
  forkd_version: textSchema,
  parent_tag: textSchema.optional(),
  rootfs: rootfsSchema.optional(),
};

const version1Schema = z.object({
  forkd_pack_version: z.literal(1),
  /** A hub's `owner/name` too: then the user must name another. */
  tag: textSchema,
  files: filesSchema,
  ...common,
});

const version2Schema = z.object({
  forkd_pack_version: z.literal(2),
  tag: snapshotTagSchema,
  files: z.array(z.unknown()).max(0).default([]),
  chain: z
    .object({
      tag: snapshotTagSchema,
      parent_tag: snapshotTagSchema.optional(),
      parent_content_hash: sha256Schema.optional(),
      files: filesSchema,
    })
    .array()
    .min(1)
    .max(limits.chainLinksMax + 1),
  ...common,
});

export const upstreamManifestSchema = z.discriminatedUnion("forkd_pack_version", [
  version1Schema,
  version2Schema,
]);

/** `manifest.toml` of a pack of upstream's. */
export type UpstreamManifest = Readonly<z.infer<typeof upstreamManifestSchema>>;
