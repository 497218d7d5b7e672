import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { type Egress, ForkdError, type SandboxId, type SandboxInfo } from "@forkd/api";
import type { GuestNet } from "../agent/guest.ts";
import type { DataPaths } from "../config/data-paths.ts";
import type { VmNetwork } from "../engine/engine.ts";
import type { Logger } from "../lib/log.ts";
import { allowsDns } from "../linux/net/child-rules.ts";
import { readHostState } from "../linux/net/host-setup.ts";
import {
  bridgeNet,
  type ChildNet,
  childName,
  childrenMax,
  deviceNames,
  gateway4,
  gateway6,
  guestShared,
} from "../linux/net/plan.ts";
import { type HeldNetns, installRules, isNetns, NetnsPool } from "../linux/net/pool.ts";
import { dataDirHash } from "./data-dir-hash.ts";
import type { Journal } from "./journal.ts";
import { NameService } from "./name-service.ts";

/** Programs that want the same namespaces at the same time: more often, and something is wrong. */
const attemptsMax = 8;

/** What a child's network is. */
export interface ChildNetwork {
  /** The namespace's name. */
  readonly netns: string;
  readonly egress: Egress;
  readonly vm: VmNetwork;
  readonly guest: GuestNet;
}

/**
 * Gives children network namespaces, each to one at a time. Who has which is with the namespaces
 * (see NetnsPool), so that all daemons and command lines of this host agree.
 */
export class NetKeeper {
  readonly #paths: DataPaths;
  readonly #pool = new NetnsPool();
  readonly #names: NameService;
  #choosing: Promise<unknown> = Promise.resolve();

  constructor(paths: DataPaths, log: Logger) {
    this.#paths = paths;
    this.#names = new NameService(log);
  }

  /** Serves sandboxes that an earlier owner made. */
  async resume(sandboxes: readonly SandboxInfo[]): Promise<void> {
    const child = sandboxes.find(({ egress }) => egress !== undefined && allowsDns(egress));
    const state = child === undefined ? undefined : await readHostState();
    if (state !== undefined) await this.#names.serve(bridgeNet(state.net4).ip4);
  }

  async close(): Promise<void> {
    await this.#names.close();
  }

  /** Throws netns_unavailable, with how to provision, unless `count` are free now. */
  async requireRoom(count: number): Promise<void> {
    if (process.getuid?.() !== 0) {
      throw new ForkdError("permission_denied", "only root can enter network namespaces");
    }
    const free = (await this.#pool.free()).length;
    if (free >= count) return;
    const held = (await this.#pool.held()).length;
    throw unavailable({ count, free, held });
  }

  /**
   * Takes a namespace for a child and installs its policy: nothing of the child may run before.
   * Written down in the child's journal before it is taken. Throws netns_unavailable.
   */
  async reserve(journal: Journal, id: SandboxId, egress: Egress): Promise<ChildNetwork> {
    const choosing = this.#choosing.then(() => this.#choose(journal, id));
    this.#choosing = choosing.catch(() => undefined);
    const { child, zone } = await choosing;
    const mac = macOf(id);
    await installRules(child, { mac, egress, zone });
    if (allowsDns(egress)) await this.#names.serve(child.bridge.ip4);
    return {
      netns: child.name,
      egress,
      vm: { netns: child.netnsFile, tap: deviceNames.tap },
      guest: guestNet(child, mac, egress),
    };
  }

  /** One after the other, so that children of one process do not race each other. */
  async #choose(journal: Journal, id: SandboxId): Promise<HeldNetns> {
    const holder = `${dataDirHash(this.#paths)}.${id}`;
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      const [number] = await this.#pool.free();
      if (number === undefined) break;
      const child = childName(number);
      const path = this.#pool.claimPath(child, holder);
      const taken = await journal.take([{ kind: "netns", path }], () =>
        this.#pool.take(child, holder),
      );
      if (taken === undefined) continue;
      if (await isNetns(taken.child.netnsFile)) return taken;
      // Somebody removed it behind our back: to give it back is to forget it.
      await this.#pool.release(taken.path);
    }
    throw unavailable({ count: 1, free: 0, held: (await this.#pool.held()).length });
  }
}

/** Claims of a data directory's sandboxes: their ids and what gives them back. */
export async function listClaims(
  paths: DataPaths,
): Promise<readonly { readonly id: string; readonly path: string }[]> {
  // Without its directory nobody could have made one, and there is nothing to name them by.
  if (!existsSync(paths.dataDir)) return [];
  const own = `${dataDirHash(paths)}.`;
  const held = await new NetnsPool().held();
  return held.flatMap(({ holder, path }) =>
    holder.startsWith(own) ? [{ id: holder.slice(own.length), path }] : [],
  );
}

/** Gives a namespace back by its claim. Idempotent. */
export async function releaseNetns(path: string): Promise<void> {
  await new NetnsPool().release(path);
}

interface Room {
  readonly count: number;
  readonly free: number;
  readonly held: number;
}

function unavailable({ count, free, held }: Room): ForkdError {
  const total = free + held;
  const state = total === 0 ? "this host has none" : `of this host's ${total}, ${held} are in use`;
  const wanted = Math.min(held + count, childrenMax);
  return new ForkdError("netns_unavailable", `network namespaces needed: ${count}; ${state}`, {
    hint: `make more with: sudo forkd netns setup ${wanted}`,
  });
}

/** Of one card, chosen by us (IEEE 802), and as unique as the sandbox's id. */
function macOf(id: SandboxId): string {
  const [...bytes] = createHash("sha256").update(`mac of ${id}`).digest().subarray(0, 5);
  return ["02", ...bytes.map((byte) => byte.toString(16).padStart(2, "0"))].join(":");
}

/** Every guest has upstream's address, for clients that know no other, and one of its own. */
function guestNet(child: ChildNet, mac: string, egress: Egress): GuestNet {
  return {
    mac,
    addresses: [
      { address: guestShared, prefix: 24 },
      { address: child.guest4, prefix: 32 },
      { address: child.guest6, prefix: 64 },
    ],
    routes: [
      { gateway: gateway4, source: child.guest4 },
      { gateway: gateway6, source: child.guest6 },
    ],
    dns: allowsDns(egress) ? gateway4 : null,
  };
}
