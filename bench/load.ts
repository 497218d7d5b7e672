import { parseArgs } from "node:util";
import { ForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { Client } from "@forkd/sdk";
import { startDaemon } from "./daemon.ts";
import { type HostFacts, hostFacts } from "./facts.ts";
import { writeResult } from "./result-file.ts";
import { type Spread, spread } from "./stats.ts";
import { formatTable, ms } from "./table.ts";

/** How late the daemon's event loop ran its timers, as the daemon measured it. */
interface LoopLag {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

interface Phase {
  readonly name: string;
  readonly loop_lag_ms: LoopLag;
  /** `GET /healthz` meanwhile, one at a time, at a steady pace. */
  readonly health_ms: Spread | null;
  readonly total_ms: number;
}

interface LoadResult {
  readonly bench: "load";
  readonly format: 1;
  readonly host: HostFacts;
  readonly n: number;
  readonly phases: readonly Phase[];
}

const countDefault = 100;
const countMax = 1000;
const idleMs = 2_000;
/** From the answer of one health check to the next one. */
const paceMs = 10;
const spawnTimeoutMs = 10 * 60_000;

const wait = (delayMs: number): Promise<void> => new Promise((done) => setTimeout(done, delayMs));

/** The lag since it was last asked for: each scrape begins a new window. */
async function loopLag(client: Client): Promise<LoopLag> {
  const text = await client.metrics();
  const of = (quantile: string): number => {
    const pattern = new RegExp(
      `^forkd_event_loop_lag_seconds\\{quantile="${quantile}"\\} (\\S+)$`,
      "m",
    );
    const value = Number(pattern.exec(text)?.[1] ?? Number.NaN);
    if (Number.isNaN(value)) throw new ForkdError("internal", "the daemon tells no lag");
    return value * 1000;
  };
  return { p50: of("0.5"), p99: of("0.99"), max: of("1") };
}

async function measure(client: Client, name: string, work: Promise<unknown>): Promise<Phase> {
  const started = performance.now();
  let isOver = false;
  const settled = work.finally(() => {
    isOver = true;
  });
  settled.catch(() => undefined);
  const health: number[] = [];
  while (!isOver) {
    const asked = performance.now();
    await client.health();
    health.push(performance.now() - asked);
    await wait(paceMs);
  }
  await settled;
  const total_ms = performance.now() - started;
  return { name, loop_lag_ms: await loopLag(client), health_ms: spread(health), total_ms };
}

interface LoadOptions {
  readonly tag: string;
  readonly n: number;
}

async function run(client: Client, { tag, n }: LoadOptions): Promise<Phase[]> {
  const compacted = `bench-load-${process.pid}`;
  const body = { snapshot_tag: tag, n };
  const ours = new Set<string>();
  const spawn = async (): Promise<void> => {
    const spawned = await client.createSandboxes({ body, timeoutMs: spawnTimeoutMs });
    for (const { id } of spawned) ours.add(id);
  };
  const killAll = async (): Promise<void> => {
    await Promise.all([...ours].map((id) => client.deleteSandbox({ params: { id } })));
    ours.clear();
  };
  const compact = () =>
    client.compactSnapshot({ params: { tag }, body: { to: compacted }, timeoutMs: spawnTimeoutMs });
  try {
    await loopLag(client);
    return [
      await measure(client, "idle", wait(idleMs)),
      await measure(client, `fork ${n}`, spawn()),
      await measure(client, `kill ${n}`, killAll()),
      await measure(client, `fork ${n}, and compact`, Promise.all([spawn(), compact()])),
    ];
  } finally {
    await killAll();
    await client.deleteSnapshot({ params: { tag: compacted } }).catch(() => undefined);
  }
}

function print({ phases }: LoadResult): void {
  const rows = phases.map(({ name, loop_lag_ms: lag, health_ms: health, total_ms }) => [
    name,
    ...[lag.p50, lag.p99, lag.max, health?.p50, health?.p99, health?.max, total_ms].map(ms),
  ]);
  const header = ["while", "lag p50 ms", "p99", "max", "healthz p50 ms", "p99", "max", "total ms"];
  console.log(formatTable(header, rows));
}

/** Measures against a daemon of its own, or the one at `--url`. Resolves to the exit code. */
export async function benchLoad(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      n: { type: "string", default: String(countDefault) },
      tag: { type: "string", default: "quickstart" },
      url: { type: "string" },
      json: { type: "string" },
    },
  });
  const n = Number(values.n);
  if (!Number.isInteger(n) || n < 1 || n > countMax) {
    throw new ForkdError("bad_request", `--n needs 1 to ${countMax}, not ${values.n}`);
  }
  await using daemon = values.url === undefined ? await startDaemon() : null;
  const client = new Client({ url: values.url ?? daemon?.url ?? "" });
  const phases = await run(client, { tag: values.tag, n });
  const paths = resolveDataPaths(process.env, process.getuid?.() ?? 0);
  const host = await hostFacts(paths.dataDir);
  const result: LoadResult = { bench: "load", format: 1, host, n, phases };
  print(result);
  if (values.json !== undefined) await writeResult(values.json, result);
  return 0;
}
