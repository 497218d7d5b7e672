import { access, constants } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import { deviceNames } from "../../linux/net/plan.ts";
import { hasCapabilities } from "../../linux/privileges.ts";
import { frozenMac } from "../card.ts";
import type { Machine, VmNetwork } from "../engine.ts";
import type { RequestBody } from "./contract.ts";
import type { FirecrackerCapabilities } from "./version.ts";

/** Firecracker's name of the only card; the guest's kernel has its own. */
const cardId = "eth0";
/** What makes network devices of programs. */
const tunDevice = "/dev/net/tun";

/** Where a guest's card is: Firecracker has none without a tap. */
export interface Card {
  /** Null: the card of a guest without a network, in a namespace with nothing else in it. */
  readonly netns: string | null;
  readonly tap: string;
}

/**
 * Whether guests of this host can have a card: only root makes namespaces (CAP_SYS_ADMIN) and taps
 * (CAP_NET_ADMIN), and not in every container.
 */
export async function canHaveCards(): Promise<boolean> {
  if (process.getuid?.() !== 0 || !(await hasCapabilities("net_admin", "sys_admin"))) return false;
  return await access(tunDevice, constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
}

/** Throws permission_denied for a machine with a card that this host cannot give it. */
export async function cardOf({ nic }: Machine, network: VmNetwork | null): Promise<Card | null> {
  if (!nic) return null;
  if (await canHaveCards()) return network ?? { netns: null, tap: deviceNames.tap };
  const needs = `needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN, and ${tunDevice}`;
  throw new ForkdError("permission_denied", `a network card of Firecracker ${needs}`, {
    hint: "ask forkd doctor --only tun, then run forkd as such a root",
  });
}

/** The card of a parent. */
export function cardRequest({ tap }: Card): RequestBody<"networkInterface"> {
  return { iface_id: cardId, host_dev_name: tap, guest_mac: frozenMac };
}

/** What a load says of the card, which is frozen with the tap of the parent. */
export function cardOverrides(
  card: Card | null,
  { networkOverrides }: FirecrackerCapabilities,
): Pick<RequestBody<"loadSnapshot">, "network_overrides"> {
  if (card === null || !networkOverrides) return {};
  return { network_overrides: [{ iface_id: cardId, host_dev_name: card.tap }] };
}
