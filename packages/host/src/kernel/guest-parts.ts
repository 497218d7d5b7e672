import { access, constants, readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { ForkdError } from "@forkd/api";

/** Where the parts that forkd puts into a guest lie on this host. */
export interface GuestParts {
  readonly agent: string;
  /** Holds python.py and node.mjs. */
  readonly runtimeDir: string;
}

const checkout = resolve(import.meta.dirname, "../../../..");

const candidates: readonly GuestParts[] = [
  { agent: join(checkout, "guest/build/forkd-agent"), runtimeDir: join(checkout, "guest/runtime") },
  ...["/usr/local/lib/forkd", "/usr/lib/forkd"].map((dir) => ({
    agent: join(dir, "forkd-agent"),
    runtimeDir: join(dir, "runtime"),
  })),
];

/** The checkout's own parts, else those of an installed package. Throws tool_missing. */
export async function findGuestParts(): Promise<GuestParts> {
  for (const parts of candidates) {
    const found = await access(parts.agent, constants.R_OK).then(
      () => true,
      () => false,
    );
    if (found) return parts;
  }
  const looked = candidates.map(({ agent }) => agent).join(", ");
  throw new ForkdError("tool_missing", `the guest agent is not built (looked for ${looked})`, {
    hint: "run: npm run native",
  });
}

const runtimeName = /^[a-z0-9_-]{1,32}\.(py|mjs)$/;

/** Paths of the warm runtimes, by name. */
export async function listRuntimes(parts: GuestParts): Promise<string[]> {
  const names = (await readdir(parts.runtimeDir)).filter((name) => runtimeName.test(name)).sort();
  return names.map((name) => join(parts.runtimeDir, name));
}
