import { type CreateSandbox, type Egress, egressNothing, ForkdError } from "@forkd/api";

/**
 * The network of a request's body: nothing for no network, and a network that lets nothing pass
 * when no policy is given. Throws bad_request for a policy without a network.
 */
export function egressOf(body: Pick<CreateSandbox, "per_child_netns" | "egress">): {
  readonly egress?: Egress;
} {
  const { per_child_netns: own, egress } = body;
  if (own) return { egress: egress ?? egressNothing };
  if (egress == null) return {};
  throw new ForkdError("bad_request", "egress is of a network, and per_child_netns is not set", {
    hint: "send per_child_netns: true with it; a sandbox without it has no network",
  });
}
