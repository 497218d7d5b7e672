import { z } from "zod";

/** What a sandbox may hold outside its work directory, by how it is given back. */
export const resourceKinds = ["file", "cgroup", "netns"] as const;
export type ResourceKind = (typeof resourceKinds)[number];

export const resourceSchema = z.object({
  kind: z.enum(resourceKinds),
  path: z.string().regex(/^\/[^\0]+$/),
});

/** One thing of one kind; `path` is absolute and names it on this host. */
export type Resource = z.infer<typeof resourceSchema>;
