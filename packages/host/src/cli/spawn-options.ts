import { ForkdError, limits } from "@forkd/api";
import { type Command, Option } from "commander";
import type { Flags } from "./flags.ts";

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
    .addOption(new Option("--per-child-netns", "a network namespace for each").hideHelp())
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

export type LimitsBody = ReturnType<typeof parseLimits>;

const notYet = [
  {
    name: "perChildNetns",
    flag: "--per-child-netns",
    instead: "reach the guest with exec and eval",
  },
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
