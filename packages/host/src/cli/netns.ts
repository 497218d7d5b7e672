import { access } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { ForkdError, toForkdError } from "@forkd/api";
import { run } from "../lib/exec.ts";
import { answerBytesMax, type ExchangeLine } from "./tcp-agent.ts";

/** Where `ip netns add` and forkd mount network namespaces. */
const netnsDir = "/var/run/netns";
/** For the relay's own start, above the exchange's deadline that it keeps itself. */
const relayGraceMs = 5000;

/**
 * Exchanges a line from inside a network namespace: Node cannot enter one, so a relay runs there
 * (netns-relay.ts) that makes the connection. `netns` has passed parseNetns.
 */
export function exchangeLineIn(netns: string): ExchangeLine {
  return async ({ target, line, timeoutMs, signal }) => {
    const path = `${netnsDir}/${netns}`;
    await requireNetns(netns, path);
    const relay = fileURLToPath(relayUrl);
    const program = [process.execPath, ...process.execArgv, relay];
    const request = [target.host, String(target.port), String(timeoutMs)];
    try {
      const { stdout } = await run(["nsenter", `--net=${path}`, "--", ...program, ...request], {
        input: line,
        timeoutMs: timeoutMs + relayGraceMs,
        stdoutBytesMax: answerBytesMax,
        ...(signal === undefined ? {} : { signal }),
      });
      return stdout;
    } catch (error) {
      const problem = toForkdError(error);
      if (problem.code !== "tool_failed") throw problem;
      throw new ForkdError("agent_unavailable", `in namespace ${netns}: ${problem.message}`, {
        hint: "check the address inside the namespace; entering one needs root",
        cause: error,
      });
    }
  };
}

const relaySource = new URL("./netns-relay.ts", import.meta.url);
/** What is published is compiled. */
const relayUrl = import.meta.url.endsWith(".ts")
  ? relaySource
  : relaySource.href.replace(/ts$/, "js");

async function requireNetns(netns: string, path: string): Promise<void> {
  try {
    await access(path);
  } catch (error) {
    throw new ForkdError("bad_request", `there is no network namespace ${netns} (${path})`, {
      hint: "list the names with: ip netns list",
      cause: error,
    });
  }
}
