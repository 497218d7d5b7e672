import { limits, type SandboxId } from "@forkd/api";
import { Option } from "commander";
import { parseTag } from "../bake.ts";
import { type Brood, type ForkOrder, mapBounded, withChildren } from "../children.ts";
import { addIgnoredOptions, noteIgnored, refuseTap } from "../compat-options.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { formatMs, summarize } from "../format.ts";
import type { Output } from "../output.ts";
import { parseTarget, type Target } from "../parse.ts";
import {
  addSpawnOptions,
  parseCount,
  parseLimits,
  parseNetwork,
  parseScratch,
  refuseUnsupported,
} from "../spawn-options.ts";
import { defineVerb } from "../verb.ts";

interface ForkOptions extends ForkOrder {
  readonly agentListen: Target | null;
  readonly settleSecs: number;
  readonly ignored: readonly string[];
}

const settleMaxSecs = 7 * 24 * 60 * 60;

/** Whole milliseconds whose sum is the sum: scripts add them up. */
interface WallClock {
  readonly readyMs: number;
  readonly restoreMs: number;
  readonly totalMs: number;
}

function wallClock({ readyMs, totalMs }: Brood): WallClock {
  const ready = Math.round(readyMs);
  const total = Math.max(ready, Math.round(totalMs));
  return { readyMs: ready, restoreMs: total - ready, totalMs: total };
}

/** Scripts parse these lines; in the last the number is the fourth word. */
function printWallClock(output: Output, count: number, clock: WallClock): void {
  output.line(`==> all sockets up in ${clock.readyMs} ms`);
  output.line(`==> ${count} restores fired in parallel in ${clock.restoreMs} ms`);
  output.line(`==> total wall-clock: ${clock.totalMs} ms`);
}

/** From the fork's begin to each child's proven identity; a daemon tells it as spawn_ms. */
function identityTimes(brood: Brood): number[] {
  return brood.children.flatMap(({ timings, info }) => {
    const ms = timings?.identityMs ?? info.spawn_ms;
    return ms === null ? [] : [ms];
  });
}

function printIdentity(output: Output, brood: Brood): void {
  if (brood.daemonUrl !== null) {
    output.progress(
      `by the daemon at ${brood.daemonUrl}; its sockets line is the time to its answer`,
    );
  }
  const summary = summarize(identityTimes(brood));
  if (summary === undefined) return;
  const { p50, max } = summary;
  const spread = `p50 ${formatMs(p50)} ms, max ${formatMs(max)} ms`;
  output.progress(`from the fork to a child's proven identity: ${spread}`);
}

/** Alive is what a guest's own agent says, not that a process is there. */
async function answering(output: Output, brood: Brood): Promise<SandboxId[]> {
  const answers = await mapBounded(brood.children, async ({ id }) => {
    try {
      await brood.guests.ping(id);
      return id;
    } catch (error) {
      output.warn(`${id} does not answer: ${error instanceof Error ? error.message : error}`);
      return undefined;
    }
  });
  return answers.filter((id) => id !== undefined);
}

/** Upstream's address of an only child. */
const agentAddress: Target = { host: "10.42.0.2", port: 8888 };

/** Beyond the settle time: for the questions and ends of the children. */
const lentSpareSecs = 300;

/**
 * The only child's agent on this host, for clients that know nothing but its address: where the
 * user says, else at upstream's address when the loopback interface has that, or may have it.
 */
async function openDoor(
  { output }: Context,
  { agentListen, settleSecs }: ForkOptions,
  { children, guests }: Brood,
): Promise<AsyncDisposable | undefined> {
  const [child, second] = children;
  if (child === undefined || second !== undefined) return undefined;
  const { isOwnAddress, openAgentDoor } = await import("../agent-door.ts");
  await using stack = new AsyncDisposableStack();
  const target = agentListen ?? agentAddress;
  try {
    if (agentListen === null) {
      const { lendGuestAddress, renewGuestAddress } = await import(
        "../../linux/net/guest-address.ts"
      );
      const lentSecs = settleSecs + lentSpareSecs;
      if (isOwnAddress(agentAddress.host)) {
        await renewGuestAddress(lentSecs);
      } else {
        const lent = await lendGuestAddress(lentSecs);
        if (lent === undefined) return undefined;
        stack.use(lent);
      }
    }
    const door = await openAgentDoor(target, {
      ping: () => guests.ping(child.id),
      exec: (request) => guests.exec(child.id, request),
      eval: (request) => guests.eval(child.id, request),
    });
    stack.use(door);
    output.progress(`${child.id} answers on ${target.host}:${target.port}`);
    return stack.move();
  } catch (error) {
    // Nobody asked for it: another fork may have the address.
    if (agentListen !== null) throw error;
    output.warn(`${child.id} has no door: ${error instanceof Error ? error.message : error}`);
    return undefined;
  }
}

async function live(context: Context, options: ForkOptions, brood: Brood): Promise<number> {
  const { output, signal } = context;
  const { sleep } = await import("../../lib/deadline.ts");
  const clock = wallClock(brood);
  if (!output.json) printWallClock(output, options.count, clock);
  printIdentity(output, brood);
  await sleep(options.settleSecs * 1000, signal);
  const alive = new Set<string>(await answering(output, brood));
  if (output.json) {
    const children = brood.children.map(({ info, timings }) => ({
      ...info,
      timings,
      alive: alive.has(info.id),
    }));
    const { tag, count } = options;
    output.data({ tag, n: count, alive: alive.size, ...snakeClock(clock), children });
  } else output.line(`==> ${alive.size} / ${options.count} children alive`);
  return alive.size === options.count ? exitCodes.ok : exitCodes.failure;
}

function snakeClock({ readyMs, restoreMs, totalMs }: WallClock): Record<string, number> {
  return { sockets_ms: readyMs, restore_ms: restoreMs, total_ms: totalMs };
}

export const forkVerb = defineVerb<ForkOptions>({
  describe: (command) => {
    command
      .name("fork")
      .description("fork children, see that they live for a while, end them")
      .requiredOption("-n, --n <count>", `how many, 1 to ${limits.spawnCountMax}`)
      .option("--settle-secs <secs>", "how long they live before they are asked", "2")
      .addOption(
        new Option(
          "--agent-listen <host:port>",
          "serve an only child's agent there, for the Python client; a loopback address",
        ).env("FORKD_TARGET"),
      );
    addSpawnOptions(command);
    return addIgnoredOptions(command, ["keepWorkdir"]);
  },
  parse: ({ flags }) => {
    refuseUnsupported(flags);
    refuseTap(flags);
    const target = flags.text("agentListen");
    return {
      tag: parseTag(flags),
      count: parseCount(flags),
      agentListen: target === undefined ? null : parseTarget(target, "--agent-listen"),
      limits: parseLimits(flags),
      network: parseNetwork(flags),
      ...parseScratch(flags),
      settleSecs: flags.integer("settleSecs", { min: 0, max: settleMaxSecs }),
      ignored: noteIgnored(flags, ["keepWorkdir"]),
    };
  },
  run: (context, options) => {
    for (const note of options.ignored) context.output.warn(note);
    context.output.progress(`forking ${options.count} of ${options.tag}`);
    return withChildren(context, options, async (brood) => {
      const door = await openDoor(context, options, brood);
      try {
        return await live(context, options, brood);
      } finally {
        await door?.[Symbol.asyncDispose]();
      }
    });
  },
});
