import type { SpawnedSandbox } from "../../fork/service.ts";
import type { OperationWatch, OperationWatcher, WatchedOperation } from "../watched-service.ts";
import type { Metric } from "./exposition.ts";
import { Counter, Histogram, pauseBuckets, workBuckets } from "./histogram.ts";

/** How long forkd's own work takes, and how it ends. */
export class OperationMeters implements OperationWatcher {
  readonly #ends = new Counter(
    "forkd_operations_total",
    "Operations by name and outcome: ok, or the error's code.",
  );
  readonly #spawn = work("forkd_spawn_seconds", "From a spawn's begin to each child's phase.");
  readonly #identity = work("forkd_identity_seconds", "From a restored child to its identity.");
  readonly #exec = work("forkd_exec_seconds", "Commands in guests, with what they wait for.");
  readonly #eval = work("forkd_eval_seconds", "Evaluations in guests, with what they wait for.");
  readonly #branch = work("forkd_branch_seconds", "Branches, from the request to the snapshot.");
  readonly #pause = new Histogram({
    name: "forkd_branch_pause_seconds",
    help: "How long a branch stopped its guest.",
    buckets: pauseBuckets,
  });

  begin(operation: WatchedOperation): OperationWatch {
    const started = performance.now();
    return {
      spawned: (child) => this.#spawned(child),
      branched: ({ pause_ms: pauseMs }) => {
        if (pauseMs !== undefined) this.#pause.observe(pauseMs);
      },
      end: (outcome) => {
        this.#ends.add({ operation, outcome });
        const elapsedMs = performance.now() - started;
        if (operation === "exec") this.#exec.observe(elapsedMs);
        if (operation === "eval") this.#eval.observe(elapsedMs);
        if (operation === "branch" && outcome === "ok") this.#branch.observe(elapsedMs);
      },
    };
  }

  #spawned({ timings }: SpawnedSandbox): void {
    const { processMs, restoredMs, identityMs } = timings;
    this.#spawn.observe(processMs, { phase: "process" });
    this.#spawn.observe(restoredMs, { phase: "restored" });
    this.#spawn.observe(identityMs, { phase: "identity" });
    this.#identity.observe(identityMs - restoredMs);
  }

  collect(): Metric[] {
    const histograms = [this.#spawn, this.#identity, this.#exec, this.#eval];
    return [this.#ends, ...histograms, this.#branch, this.#pause].map((each) => each.collect());
  }
}

function work(name: string, help: string): Histogram {
  return new Histogram({ name, help, buckets: workBuckets });
}
