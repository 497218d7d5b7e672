import { type Egress, egressSchema, ForkdError, limits } from "@forkd/api";
import { type Command, Option } from "commander";
import { z } from "zod";
import { type Flags, usage } from "./flags.ts";

/** What fork and spawn share. */
export function addSpawnOptions(command: Command): Command {
  return command
    .requiredOption("--tag <tag>", "the snapshot to fork")
    .option("--memory-limit-mib <mib>", "end a child that uses more of the host's memory")
    .option("--cpus <number>", "give each child at most this much of the host's processors")
    .option("--pids-limit <count>", "bound the host's threads of each child's VMM")
    .option("--io-read-bps <bytes>", "bound what each child reads from the disk in a second")
    .option("--io-write-bps <bytes>", "bound what each child writes to the disk in a second")
    .option("--scratch-mib <mib>", "fail when the children have no disk of at least this size")
    .option("--require-limits", "fail when one of these cannot be enforced on the host")
    .option("--per-child-netns", "give each a network of its own; see forkd netns setup")
    .option("--egress <policy>", "what each may reach by it: deny (default), allow, or JSON")
    .addOption(new Option("--live-fork", "fork a parent that runs").hideHelp())
    .addOption(new Option("--hugepages", "back the guests with huge pages").hideHelp());
}

export function parseCount(flags: Flags): number {
  return flags.integer("n", { min: 1, max: limits.spawnCountMax, code: "invalid_count" });
}

/** The limits as the API names them. */
export function parseLimits(flags: Flags) {
  const bps = { min: limits.ioMinBps, max: Number.MAX_SAFE_INTEGER };
  const pids = { min: limits.pidsLimitMin, max: limits.pidsLimitMax };
  const memory = { min: 1, max: limits.memoryLimitMaxMib };
  const cpus = { min: limits.cpuLimitMin, max: limits.cpuLimitMax };
  return {
    memory_limit_mib: flags.optionalInteger("memoryLimitMib", memory) ?? null,
    cpu_limit: flags.optionalNumber("cpus", cpus) ?? null,
    pids_limit: flags.optionalInteger("pidsLimit", pids) ?? null,
    io_read_bps: flags.optionalInteger("ioReadBps", bps) ?? null,
    io_write_bps: flags.optionalInteger("ioWriteBps", bps) ?? null,
    require_limits: flags.on("requireLimits"),
  };
}

/** The least scratch disk as the API names it; nothing when none is asked for. */
export function parseScratch(flags: Flags): { readonly scratch_mib?: number } {
  const bounds = { min: limits.scratchMinMib, max: limits.scratchMaxMib };
  const mib = flags.optionalInteger("scratchMib", bounds);
  return mib === undefined ? {} : { scratch_mib: mib };
}

/** The network as the API names it. Throws bad_request for a policy that is none. */
export function parseNetwork(flags: Flags): NetworkBody {
  const text = flags.text("egress");
  const own = flags.on("perChildNetns");
  if (text === undefined) return { per_child_netns: own };
  if (!own) throw usage("--egress needs --per-child-netns", "without it there is no network");
  const value: unknown = text.startsWith("{") ? parseJson(text) : { default: text };
  const parsed = egressSchema.safeParse(value);
  if (parsed.success) return { per_child_netns: own, egress: parsed.data };
  throw usage(
    `--egress is no policy: ${z.prettifyError(parsed.error)}`,
    `for example: --egress '{"allow": [{"cidr": "203.0.113.7", "ports": [443]}]}'`,
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw usage("--egress is neither deny nor allow, and no JSON");
  }
}

export interface NetworkBody {
  readonly per_child_netns: boolean;
  readonly egress?: Egress;
}

export type LimitsBody = ReturnType<typeof parseLimits>;

const notYet = [
  { name: "liveFork", flag: "--live-fork", instead: "fork the snapshot without it" },
  { name: "hugepages", flag: "--hugepages", instead: "fork the snapshot without it" },
] as const;

/** A flag that would be ignored is refused. Throws bad_request. */
export function refuseUnsupported(flags: Flags): void {
  const asked = notYet.find(({ name }) => flags.on(name));
  if (asked === undefined) return;
  throw new ForkdError("bad_request", `${asked.flag} is not supported by this version of forkd`, {
    hint: `leave ${asked.flag} out: ${asked.instead}`,
  });
}
