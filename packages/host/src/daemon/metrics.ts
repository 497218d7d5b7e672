import { type IntervalHistogram, monitorEventLoopDelay } from "node:perf_hooks";
import type { FastifyInstance } from "fastify";
import type { LimitSupport } from "../fork/limits.ts";
import type { ForkService } from "../fork/service.ts";
import { onAnswered } from "./answered.ts";

export interface MetricsOptions {
  readonly service: ForkService;
  readonly version: string;
  readonly branchConcurrency: number;
}

interface Sample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

interface Metric {
  readonly name: string;
  readonly type: "gauge" | "counter";
  readonly help: string;
  readonly samples: readonly Sample[];
}

const loopResolutionMs = 20;
const nanosecondsPerSecond = 1e9;
const lagQuantiles = ["0.5", "0.99", "1"] as const;

/** What the daemon tells Prometheus. The first five names are upstream's and stay. */
export class Metrics {
  readonly #options: MetricsOptions;
  readonly #loop: IntervalHistogram;
  #loopMaxNs = 0;
  readonly #answers = new Map<number, number>();

  constructor(options: MetricsOptions) {
    this.#options = options;
    this.#loop = monitorEventLoopDelay({ resolution: loopResolutionMs });
  }

  /** Counts answers by status and measures the loop while the server lives. */
  install(app: FastifyInstance): void {
    this.#loop.enable();
    onAnswered(app, ({ status }) => {
      this.#answers.set(status, (this.#answers.get(status) ?? 0) + 1);
    });
    app.addHook("onClose", async () => {
      this.#loop.disable();
    });
  }

  /** Text in Prometheus' exposition format 0.0.4. Each call begins a new window of loop lag. */
  async render(): Promise<string> {
    const { service } = this.#options;
    const snapshots = await service.listSnapshots();
    const metrics = [
      ...this.#upstreamMetrics(snapshots.length, service.listSandboxes().length),
      this.#answerCounts(),
      ...this.#loopLag(),
      limitsEnforced(await service.limitSupport()),
      gauge(
        "process_resident_memory_bytes",
        "Memory of the daemon itself.",
        process.memoryUsage.rss(),
      ),
    ];
    return metrics.map(renderMetric).join("");
  }

  #upstreamMetrics(snapshots: number, sandboxes: number): readonly Metric[] {
    const { version, branchConcurrency } = this.#options;
    return [
      {
        ...gauge("forkd_build_info", "Always 1; the label tells the version.", 1),
        samples: [{ labels: { version }, value: 1 }],
      },
      gauge("forkd_snapshots_total", "Snapshots on this host.", snapshots),
      gauge("forkd_sandboxes_active", "Live sandboxes.", sandboxes),
      gauge(
        "forkd_branches_in_flight",
        "Branches being taken.",
        this.#options.service.branchesInFlight(),
      ),
      gauge(
        "forkd_branch_concurrency_cap",
        "Branches that may be taken at once.",
        branchConcurrency,
      ),
    ];
  }

  #answerCounts(): Metric {
    return {
      name: "forkd_http_answers_total",
      type: "counter",
      help: "Answers by HTTP status.",
      samples: [...this.#answers].map(([status, value]) => ({
        labels: { status: String(status) },
        value,
      })),
    };
  }

  #loopLag(): readonly Metric[] {
    this.#loopMaxNs = Math.max(this.#loopMaxNs, this.#loop.max);
    const samples = lagQuantiles.map((quantile) => ({
      labels: { quantile },
      value: lagSeconds(this.#loop.percentile(Number(quantile) * 100)),
    }));
    this.#loop.reset();
    return [
      {
        name: "forkd_event_loop_lag_seconds",
        type: "gauge",
        help: "How late the event loop ran timers since the last scrape.",
        samples,
      },
      gauge(
        "forkd_event_loop_lag_max_seconds",
        "How late the event loop ran a timer at most, since the daemon's start.",
        lagSeconds(this.#loopMaxNs),
      ),
    ];
  }
}

/** What was measured lies the timer's own interval above the lag. */
function lagSeconds(measuredNs: number): number {
  return Math.max(0, measuredNs / nanosecondsPerSecond - loopResolutionMs / 1000);
}

function limitsEnforced(support: readonly LimitSupport[]): Metric {
  return {
    name: "forkd_limits_enforced",
    type: "gauge",
    help: "Whether this host enforces a limit of a sandbox: 1, or 0.",
    samples: support.map(({ controller, limit, reason }) => ({
      labels: { controller, limit },
      value: reason === null ? 1 : 0,
    })),
  };
}

function gauge(name: string, help: string, value: number): Metric {
  return { name, type: "gauge", help, samples: [{ value }] };
}

function renderMetric({ name, type, help, samples }: Metric): string {
  const lines = samples.map(({ labels, value }) => `${name}${renderLabels(labels)} ${value}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

function renderLabels(labels: Sample["labels"]): string {
  if (labels === undefined) return "";
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return `{${pairs.join(",")}}`;
}
