import { rm } from "node:fs/promises";
import { z } from "zod";
import { releaseCgroup } from "./limits.ts";
import { releaseNetns } from "./network.ts";

/** What a sandbox may hold outside its work directory, by how it is given back. */
export const resourceKinds = ["file", "cgroup", "netns"] as const;
export type ResourceKind = (typeof resourceKinds)[number];

export const resourceSchema = z.object({
  kind: z.enum(resourceKinds),
  path: z.string().regex(/^\/[^\0]+$/),
});

/** One thing of one kind; `path` is absolute and names it on this host. */
export type Resource = z.infer<typeof resourceSchema>;

/** Gives one back. Each is right for a resource that was never taken, or given back already. */
const releasers: Readonly<Record<ResourceKind, (path: string) => Promise<void>>> = {
  file: (path) => rm(path, { force: true }),
  cgroup: releaseCgroup,
  netns: releaseNetns,
};

/** The last taken goes first. All are tried; throws the first failure. */
export async function releaseAll(resources: readonly Resource[]): Promise<void> {
  const failures: unknown[] = [];
  for (const { kind, path } of resources.toReversed()) {
    await releasers[kind](path).catch((error: unknown) => failures.push(error));
  }
  if (failures.length > 0) throw failures[0];
}
