import { type IntervalHistogram, monitorEventLoopDelay } from "node:perf_hooks";
import { gauge, type Metric } from "./exposition.ts";

const resolutionMs = 20;
const nanosecondsPerSecond = 1e9;
const quantiles = ["0.5", "0.99", "1"] as const;

/** How late the daemon's event loop is. */
export class EventLoopLag {
  readonly #delay: IntervalHistogram = monitorEventLoopDelay({ resolution: resolutionMs });
  #maxNs = 0;

  start(): void {
    this.#delay.enable();
  }

  stop(): void {
    this.#delay.disable();
  }

  /** Each call begins a new window. */
  collect(): readonly Metric[] {
    this.#maxNs = Math.max(this.#maxNs, this.#delay.max);
    const samples = quantiles.map((quantile) => ({
      labels: { quantile },
      value: lagSeconds(this.#delay.percentile(Number(quantile) * 100)),
    }));
    this.#delay.reset();
    return [
      {
        name: "forkd_event_loop_lag_seconds",
        type: "summary",
        help: "How late the event loop ran timers since the last scrape.",
        samples,
      },
      gauge(
        "forkd_event_loop_lag_max_seconds",
        "How late the event loop ran a timer at most, since the daemon's start.",
        lagSeconds(this.#maxNs),
      ),
    ];
  }
}

/** What was measured lies the timer's own interval above the lag. */
function lagSeconds(measuredNs: number): number {
  return Math.max(0, measuredNs / nanosecondsPerSecond - resolutionMs / 1000);
}
