import { ForkdError } from "@forkd/api";

/**
 * Why an engine ended a guest's channel itself. The guest is well and listens: another channel can
 * be had at once, and what was under way on the old one has no answer.
 */
export class ChannelReset extends ForkdError {
  constructor(why: string) {
    super("agent_unavailable", why, { hint: "the sandbox runs on: ask again" });
  }
}
