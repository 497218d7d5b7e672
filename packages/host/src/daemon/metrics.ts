import { endReasonSchema, type SandboxInfo, sandboxStateSchema } from "@forkd/api";
import type { FastifyInstance } from "fastify";
import type { LimitSupport } from "../fork/limits.ts";
import type { ForkService } from "../fork/service.ts";
import { EventLoopLag } from "./metrics/event-loop.ts";
import { gauge, type Metric, renderMetrics } from "./metrics/exposition.ts";
import { OperationMeters } from "./metrics/operations.ts";
import { processMetrics } from "./metrics/process.ts";
import { RequestMeters } from "./metrics/requests.ts";
import type { SocketRefusals } from "./socket-refusals.ts";

export interface MetricsOptions {
  readonly service: ForkService;
  readonly version: string;
  readonly branchConcurrency: number;
  /** Spans that no collector took; null while nothing is traced. */
  readonly droppedSpans?: (() => number) | null;
}

/** What the daemon tells Prometheus. docs/metrics.md lists it. */
export class Metrics {
  readonly #options: MetricsOptions;
  readonly #loop = new EventLoopLag();
  readonly #requests = new RequestMeters();
  /** To be told what the service does. */
  readonly operations: OperationMeters = new OperationMeters();

  constructor(options: MetricsOptions) {
    this.#options = options;
  }

  /** Counts answers and measures the loop while the server lives. */
  install(app: FastifyInstance, refusals: SocketRefusals): void {
    this.#loop.start();
    this.#requests.install(app, refusals);
    app.addHook("onClose", async () => this.#loop.stop());
  }

  /** Text in Prometheus' exposition format 0.0.4. Each call begins a new window of loop lag. */
  async render(): Promise<string> {
    const { service, droppedSpans } = this.#options;
    const sandboxes = service.listSandboxes();
    const metrics = [
      ...this.#upstreamMetrics((await service.listSnapshots()).length, sandboxes.length),
      ...this.#requests.collect(),
      ...this.operations.collect(),
      sandboxesByState(sandboxes),
      ...loadMetrics(service),
      ...(await storageMetrics(service)),
      limitsEnforced(await service.limitSupport()),
      ...this.#loop.collect(),
      ...(await processMetrics()),
    ];
    const dropped = droppedSpans?.();
    if (dropped !== undefined) metrics.push(spansDropped(dropped));
    return renderMetrics(metrics);
  }

  /** Their names are upstream's and stay. */
  #upstreamMetrics(snapshots: number, sandboxes: number): readonly Metric[] {
    const { version, branchConcurrency, service } = this.#options;
    return [
      {
        ...gauge("forkd_build_info", "Always 1; the label tells the version.", 1),
        samples: [{ labels: { version }, value: 1 }],
      },
      gauge("forkd_snapshots_total", "Snapshots on this host.", snapshots),
      gauge("forkd_sandboxes_active", "Live sandboxes.", sandboxes),
      gauge("forkd_branches_in_flight", "Branches being taken.", service.branchesInFlight()),
      gauge(
        "forkd_branch_concurrency_cap",
        "Branches that may be taken at once.",
        branchConcurrency,
      ),
    ];
  }
}

function sandboxesByState(sandboxes: readonly SandboxInfo[]): Metric {
  const states = sandboxStateSchema.options.filter((state) => state !== "ended");
  const samples = states.map((state) => ({
    labels: { state },
    value: sandboxes.filter((sandbox) => sandbox.state === state).length,
  }));
  return { name: "forkd_sandboxes", type: "gauge", help: "Live sandboxes by state.", samples };
}

function loadMetrics(service: ForkService): Metric[] {
  const { restores, ends } = service.load();
  return [
    gauge("forkd_restores_running", "Children being restored.", restores.running),
    gauge("forkd_restores_waiting", "Children that wait for a place.", restores.waiting),
    gauge("forkd_restores_cap", "Children that may be restored at once.", restores.places),
    gauge("forkd_restores_waiting_cap", "Children that may wait.", restores.waitingMax),
    {
      name: "forkd_sandbox_ends_total",
      type: "counter",
      help: "Sandboxes that ended under this daemon, by reason.",
      samples: endReasonSchema.options.map((reason) => ({
        labels: { reason },
        value: ends.get(reason) ?? 0,
      })),
    },
  ];
}

async function storageMetrics(service: ForkService): Promise<Metric[]> {
  const { freeBytes, totalBytes } = await service.storage();
  return [
    gauge("forkd_storage_free_bytes", "Room for snapshots.", freeBytes),
    gauge("forkd_storage_size_bytes", "Size of the snapshots' file system.", totalBytes),
  ];
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

function spansDropped(value: number): Metric {
  const help = "Spans that no collector took.";
  return { name: "forkd_trace_spans_dropped_total", type: "counter", help, samples: [{ value }] };
}
