import { createHash } from "node:crypto";
import { realpathSync } from "node:fs";
import type { DataPaths } from "../config/data-paths.ts";

const hashDigits = 12;

/** Names a data directory where many have things side by side; the same for every name of it. */
export function dataDirHash({ dataDir }: DataPaths): string {
  return createHash("sha256").update(realpathSync(dataDir)).digest("hex").slice(0, hashDigits);
}

export const dataDirHashPattern = new RegExp(`^[0-9a-f]{${hashDigits}}$`);
