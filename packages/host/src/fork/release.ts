import { rm } from "node:fs/promises";
import { releaseCgroup } from "./limits.ts";
import { releaseNetns } from "./network.ts";
import type { Resource, ResourceKind } from "./resources.ts";

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
