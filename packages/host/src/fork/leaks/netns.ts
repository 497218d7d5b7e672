import { stat } from "node:fs/promises";
import { join } from "node:path";
import { listClaims, releaseNetns } from "../network.ts";
import type { Leak, LeakScope } from "./leak.ts";

/** Network namespaces held for no sandbox. A work directory is there before and goes after. */
export async function findNetns({ paths }: LeakScope): Promise<Leak[]> {
  const claims = await listClaims(paths);
  const found = await Promise.all(
    claims.map(async ({ id, path }): Promise<Leak[]> => {
      const owner = await stat(join(paths.workDir, id)).catch(() => undefined);
      return owner === undefined ? [describe(path)] : [];
    }),
  );
  return found.flat();
}

function describe(path: string): Leak {
  return {
    kind: "netns",
    what: path,
    why: "the sandbox that it was taken for is gone",
    fix: async () => {
      await releaseNetns(path);
      return "closed it and gave it back";
    },
  };
}
