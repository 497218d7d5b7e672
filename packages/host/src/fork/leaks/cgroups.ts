import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { releaseCgroup } from "../limits.ts";
import type { Leak, LeakScope } from "./leak.ts";

/** Control groups without a sandbox. A work directory is there before its groups and goes after. */
export async function findCgroups({ paths, limits }: LeakScope): Promise<Leak[]> {
  // Without its directory there is nothing that they could be of, and nothing to name them by.
  if (!existsSync(paths.dataDir)) return [];
  const groups = await limits.list();
  const found = await Promise.all(
    [...groups].map(async ([name, dirs]): Promise<Leak[]> => {
      const owner = await stat(join(paths.workDir, name)).catch(() => undefined);
      return owner === undefined ? dirs.map(describe) : [];
    }),
  );
  return found.flat();
}

function describe(path: string): Leak {
  return {
    kind: "cgroup",
    what: path,
    why: "no sandbox has its name",
    fix: async () => {
      await releaseCgroup(path);
      return "ended what ran in it and removed it";
    },
  };
}
