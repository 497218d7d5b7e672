import type { ForkRound } from "./forks.ts";
import type { SpawnResult } from "./spawn-result.ts";
import { formatTable, mib, ms, times } from "./table.ts";

/** The round whose total is the median: its spreads are shown. */
function middleRound<T extends { readonly total_ms: number }>(rounds: readonly T[]): T | undefined {
  const sorted = [...rounds].sort((a, b) => a.total_ms - b.total_ms);
  return sorted[Math.ceil(sorted.length / 2) - 1];
}

function answerTable(result: SpawnResult): string {
  const rows = result.sizes.flatMap(({ count, forks, containers }) => {
    const contenders = [
      ["fork", middleRound(forks)],
      ["container", middleRound(containers)],
    ] as const;
    return contenders.map(([name, round]) => [
      String(count),
      name,
      `${round?.verified ?? 0}/${count}`,
      ms(round?.answer_ms?.p50),
      ms(round?.answer_ms?.p95),
      ms(round?.answer_ms?.p99),
      ms(round?.answer_ms?.max),
      ms(round?.total_ms),
    ]);
  });
  const header = ["n", "what", "right", "p50 ms", "p95 ms", "p99 ms", "max ms", "total ms"];
  return formatTable(header, rows);
}

function idlePercent(forks: readonly ForkRound[]): string {
  const idle = forks.map((round) => round.idle_core_percent).find((value) => value !== null);
  return idle === undefined ? "-" : idle.mean.toFixed(3);
}

function memoryTable(result: SpawnResult): string {
  const rows = result.sizes.map(({ count, forks }) => {
    const round = middleRound(forks);
    return [
      String(count),
      mib(round?.unique_bytes?.p50),
      mib(round?.unique_bytes?.max),
      mib(round?.proportional_bytes?.p50),
      idlePercent(forks),
    ];
  });
  return formatTable(["n", "USS p50 MiB", "USS max MiB", "PSS p50 MiB", "idle % of a core"], rows);
}

function comparisonTable(result: SpawnResult): string {
  const rows = result.comparison.map((row) => [
    String(row.count),
    row.success_percent.toFixed(1),
    ms(row.forks_total_ms),
    ms(row.containers_total_ms),
    ms(row.cold_boots_total_ms),
    times(row.containers_to_forks),
    times(row.cold_boots_to_forks),
  ]);
  const header = [
    "n",
    "success %",
    "forks ms",
    "containers ms",
    "cold boots ms",
    "containers/forks",
    "cold boots/forks",
  ];
  return formatTable(header, rows);
}

function failuresOf(result: SpawnResult): string[] {
  const rounds = result.sizes.flatMap(({ forks, containers }) => [...forks, ...containers]);
  const cold = [result.cold_boot.single, result.cold_boot.several];
  const all = [...rounds, ...cold].flatMap(({ failures }) => failures);
  return [...new Set(all)].slice(0, 10);
}

export function printSpawnReport(result: SpawnResult): void {
  const { host, subject, cold_boot } = result;
  console.log(`host      ${host.cpu}, ${host.cores} cores, ${host.memory_mib} MiB, ${host.os}`);
  console.log(`          Linux ${host.kernel}, ${host.data_dir_fs}, Node ${host.node}`);
  console.log(`          ${host.qemu}; ${host.crun}`);
  console.log(
    `snapshot  ${subject.tag} of ${subject.image}, ${subject.engine.name}, ` +
      `${subject.machine.accel}, ${subject.machine.vcpus} vCPU, ${subject.machine.memory_mib} MiB`,
  );
  console.log("\nTime from the start to each first right answer (the median round)\n");
  console.log(answerTable(result));
  console.log("\nMemory and rest of a forked child after the work\n");
  console.log(memoryTable(result));
  const { single, several } = cold_boot;
  console.log(
    `\nCold boot to a warm interpreter: ${ms(single.warm_ms?.p50)} ms alone; ` +
      `${ms(several.warm_ms?.p50)} ms each, ${several.booted} at ${several.concurrency} a time`,
  );
  console.log("\nTotals (median of rounds; cold boots by their measured rate), and ratios\n");
  console.log(comparisonTable(result));
  for (const failure of failuresOf(result)) console.log(`failure: ${failure}`);
}
