import type { Manifest } from "@forkd/host/store/manifest.ts";
import type { ColdBoots } from "./cold-boots.ts";
import type { ContainerRound } from "./containers.ts";
import type { HostFacts } from "./facts.ts";
import type { ForkRound } from "./forks.ts";
import { median, ratio } from "./stats.ts";

export interface SizeResult {
  readonly count: number;
  readonly forks: readonly ForkRound[];
  readonly containers: readonly ContainerRound[];
}

export interface ColdBootResult {
  /** One boot with the host to itself. */
  readonly single: ColdBoots;
  /** Some at a time, for the rate at which this host can boot. */
  readonly several: ColdBoots;
}

/** Medians over the rounds of one size, and how they compare. Ratios over 1 favour forks. */
export interface Comparison {
  readonly count: number;
  readonly success_percent: number;
  readonly forks_total_ms: number | null;
  readonly containers_total_ms: number | null;
  /** Reckoned from the rate of the boots that were measured. */
  readonly cold_boots_total_ms: number | null;
  readonly containers_to_forks: number | null;
  readonly cold_boots_to_forks: number | null;
}

/** The JSON file. `format` grows when a field changes its meaning. */
export interface SpawnResult {
  readonly bench: "spawn";
  readonly format: 1;
  readonly host: HostFacts;
  readonly subject: {
    readonly tag: string;
    readonly image: string;
    readonly engine: Manifest["engine"];
    readonly machine: Manifest["machine"];
  };
  readonly sizes: readonly SizeResult[];
  readonly cold_boot: ColdBootResult;
  readonly comparison: readonly Comparison[];
}

/** The total of `count` cold boots: measured for one, else the rate of several times the count. */
function coldTotal(count: number, cold: ColdBootResult): number | null {
  const { single, several } = cold;
  if (count === 1) return single.booted === 1 ? single.total_ms : null;
  if (several.booted === 0 || several.booted < several.count) return null;
  return (several.total_ms / several.booted) * count;
}

const good = (rounds: readonly { count: number; verified: number; total_ms: number }[]) =>
  rounds.filter((round) => round.verified === round.count).map((round) => round.total_ms);

export function compare(sizes: readonly SizeResult[], cold: ColdBootResult): Comparison[] {
  return sizes.map(({ count, forks, containers }) => {
    const verified = forks.reduce((sum, round) => sum + round.verified, 0);
    const forksTotal = median(good(forks));
    const containersTotal = median(good(containers));
    const coldBootsTotal = coldTotal(count, cold);
    return {
      count,
      success_percent: (verified / (count * forks.length)) * 100,
      forks_total_ms: forksTotal,
      containers_total_ms: containersTotal,
      cold_boots_total_ms: coldBootsTotal,
      containers_to_forks: ratio(containersTotal, forksTotal),
      cold_boots_to_forks: ratio(coldBootsTotal, forksTotal),
    };
  });
}
