import { limits, parseSandboxId, type SandboxId } from "@forkd/api";
import { type Command, Option } from "commander";
import type { Context } from "./context.ts";
import { type Flags, usage } from "./flags.ts";
import { parseNetns, parseTarget, type Target } from "./parse.ts";
import type { TcpAgent } from "./tcp-agent.ts";
import type { VerbInput } from "./verb.ts";

/** What exec, eval and ping share: which guest is meant, and by which way it is reached. */
export type Guest =
  | { readonly by: "daemon"; readonly id: SandboxId }
  | { readonly by: "tcp"; readonly target: Target; readonly netns: string | null };

/** Upstream's address of the only guest, or of each guest inside its own namespace. */
const targetDefault = "10.42.0.2:8888";

export function addGuestOptions(command: Command): Command {
  return command
    .addOption(new Option("--id <id>", "a sandbox of the daemon; the same as the argument ID"))
    .addOption(
      new Option(
        "--target <host:port>",
        `the guest agent's address, past the daemon (${targetDefault} when no guest is named)`,
      ).conflicts("id"),
    )
    .addOption(
      new Option(
        "--child <netns>",
        "connect from inside this network namespace; needs root",
      ).conflicts("id"),
    );
}

/** Throws bad_request for two guests at once, invalid_id, and what the parsers throw. */
export function parseGuest({ flags, args }: VerbInput): Guest {
  const [positional, extra] = args;
  if (extra !== undefined) {
    throw usage(`unexpected ${JSON.stringify(extra)}`, "put what the guest shall run after --");
  }
  const id = flags.text("id");
  const address = flags.text("target");
  const child = flags.text("child");
  if (positional !== undefined && (id ?? address ?? child) !== undefined) {
    throw usage(`${JSON.stringify(positional)} and an option both name a guest`, "name it once");
  }
  const named = id ?? positional;
  if (named !== undefined) return { by: "daemon", id: parseSandboxId(named) };
  const netns = child === undefined ? null : parseNetns(child);
  return { by: "tcp", target: parseTarget(address ?? targetDefault), netns };
}

export function parseTimeoutSecs(flags: Flags): number {
  return flags.integer("timeoutSecs", { min: 1, max: limits.execTimeoutMaxSecs });
}

export async function openTcpAgent(
  context: Context,
  guest: Extract<Guest, { by: "tcp" }>,
): Promise<TcpAgent> {
  const { TcpAgent } = await import("./tcp-agent.ts");
  if (guest.netns === null) return new TcpAgent(guest.target, context.signal);
  const { exchangeLineIn } = await import("./netns.ts");
  return new TcpAgent(guest.target, context.signal, exchangeLineIn(guest.netns));
}
