import { ForkdError, limits } from "@forkd/api";
import { type Command, Option } from "commander";
import type { Flags } from "./flags.ts";

/** What fork and spawn share. */
export function addSpawnOptions(command: Command): Command {
  return command
    .requiredOption("--tag <tag>", "the snapshot to fork")
    .option("--memory-limit-mib <mib>", "end a child that uses more of the host's memory")
    .addOption(new Option("--per-child-netns", "a network namespace for each").hideHelp())
    .addOption(new Option("--live-fork", "fork a parent that runs").hideHelp())
    .addOption(new Option("--hugepages", "back the guests with huge pages").hideHelp());
}

export function parseCount(flags: Flags): number {
  return flags.integer("n", { min: 1, max: limits.spawnCountMax, code: "invalid_count" });
}

const memoryLimitMaxMib = 1024 * 1024;

export function parseMemoryLimit(flags: Flags): number | null {
  return flags.optionalInteger("memoryLimitMib", { min: 1, max: memoryLimitMaxMib }) ?? null;
}

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
