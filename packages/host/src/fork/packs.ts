import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { totalmem } from "node:os";
import { toForkdError } from "@forkd/api";
import { packageVersion } from "../lib/version.ts";
import { cpuFlags } from "../linux/cpu-flags.ts";
import type { PackHost } from "../pack/host.ts";
import type { PackOrder, PackReport, UnpackOrder, UnpackReport } from "../pack/orders.ts";
import type { HostFacts } from "../pack/requires.ts";
import { unpackSnapshot } from "../pack/unpack.ts";
import { packSnapshot } from "../pack/write.ts";
import type { ForkDeps } from "./deps.ts";

type PackDeps = Pick<ForkDeps, "paths" | "store" | "owner" | "engines">;

/** See packSnapshot. */
export function pack(deps: PackDeps, order: PackOrder): Promise<PackReport> {
  return packSnapshot(hostOf(deps), order);
}

/** See unpackSnapshot. */
export async function unpack(deps: PackDeps, order: UnpackOrder): Promise<UnpackReport> {
  return await unpackSnapshot({ ...hostOf(deps), facts: await factsOf(deps) }, order);
}

function hostOf({ paths, store, owner }: PackDeps): PackHost {
  return { paths, store, owner, forkdVersion: packageVersion() };
}

async function factsOf({ engines }: PackDeps): Promise<HostFacts> {
  const hasKvm = await access("/dev/kvm", constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  return {
    arch: process.arch,
    engineVersion: async (name) => {
      try {
        return await engines.get(name).version();
      } catch (error) {
        if (toForkdError(error).code === "engine_unavailable") return undefined;
        throw error;
      }
    },
    hasKvm,
    cpuFlags: await cpuFlags(),
    memoryMib: Math.floor(totalmem() / 1024 / 1024),
  };
}
