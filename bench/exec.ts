import { mkdir, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import { ForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { Client } from "@forkd/sdk";
import { startDaemon } from "./daemon.ts";
import { type HostFacts, hostFacts } from "./facts.ts";
import { type Spread, spread } from "./stats.ts";
import { formatTable, ms } from "./table.ts";

interface ExecResult {
  readonly bench: "exec";
  readonly format: 1;
  readonly host: HostFacts;
  readonly calls: number;
  /** The agent's own echo, as the daemon timed it: no HTTP, no process. */
  readonly agent_echo_ms: Spread | null;
  /** A ping through the daemon: HTTP on a kept connection and the echo. */
  readonly ping_ms: Spread | null;
  /** `true` through the daemon, start to answer. */
  readonly exec_ms: Spread | null;
  /** What the agent says that `true` itself took: fork, exec, exit. */
  readonly exec_in_guest_ms: Spread | null;
  /** Of each exec, all but what it took in the guest: the price of the way. */
  readonly exec_overhead_ms: Spread | null;
  readonly health_ms: Spread | null;
}

const callsDefault = 200;
const callsMax = 100_000;
/** Let the connection, the JIT and the guest's caches settle. */
const warmUpCalls = 20;

async function timed<T>(call: () => Promise<T>): Promise<{ value: T; ms: number }> {
  const started = performance.now();
  const value = await call();
  return { value, ms: performance.now() - started };
}

async function repeat<T>(calls: number, call: () => Promise<T>) {
  for (let i = 0; i < warmUpCalls; i += 1) await call();
  const results: { value: T; ms: number }[] = [];
  for (let i = 0; i < calls; i += 1) results.push(await timed(call));
  return results;
}

const times = (results: readonly { readonly ms: number }[]): number[] => results.map((r) => r.ms);

async function measure(client: Client, id: string, calls: number) {
  const params = { id };
  const health = await repeat(calls, () => client.health());
  const pings = await repeat(calls, () => client.pingSandbox({ params }));
  const body = { args: ["true"] };
  const execs = await repeat(calls, () => client.execSandbox({ params, body }));
  const wrong = execs.find(({ value }) => value.exit_code !== 0);
  if (wrong !== undefined) {
    throw new ForkdError("exec_failed", `true ended with ${wrong.value.exit_code}`);
  }
  return {
    health_ms: spread(times(health)),
    ping_ms: spread(times(pings)),
    agent_echo_ms: spread(pings.map(({ value }) => value.agent_rtt_us / 1000)),
    exec_ms: spread(times(execs)),
    exec_in_guest_ms: spread(execs.map(({ value }) => value.duration_ms)),
    exec_overhead_ms: spread(execs.map((exec) => exec.ms - exec.value.duration_ms)),
  };
}

function print(result: ExecResult): void {
  const row = (name: string, times: Spread | null): string[] => [
    name,
    ...[times?.p50, times?.p95, times?.p99, times?.max].map((value) => ms(value)),
  ];
  const rows = [
    row("GET /healthz", result.health_ms),
    row("agent's echo", result.agent_echo_ms),
    row("ping", result.ping_ms),
    row("exec true", result.exec_ms),
    row("  in the guest", result.exec_in_guest_ms),
    row("  all else", result.exec_overhead_ms),
  ];
  console.log(`${result.calls} calls each, one after the other, one kept connection\n`);
  console.log(formatTable(["what", "p50 ms", "p95 ms", "p99 ms", "max ms"], rows));
  const { exec_overhead_ms, agent_echo_ms } = result;
  if (exec_overhead_ms === null || agent_echo_ms === null) return;
  const above = exec_overhead_ms.p50 - agent_echo_ms.p50;
  console.log(`\nexec costs ${ms(above)} ms above the agent's echo (medians)`);
}

async function onSandbox(client: Client, tag: string, calls: number) {
  const spawned = await client.createSandboxes({ body: { snapshot_tag: tag, n: 1 } });
  const sandbox = spawned[0];
  if (sandbox === undefined) throw new ForkdError("internal", "the daemon spawned nothing");
  try {
    return await measure(client, sandbox.id, calls);
  } finally {
    await client.deleteSandbox({ params: { id: sandbox.id } });
  }
}

/** Measures against a daemon of its own, or the one at `--url`. Resolves to the exit code. */
export async function benchExec(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      calls: { type: "string", default: String(callsDefault) },
      tag: { type: "string", default: "quickstart" },
      url: { type: "string" },
      json: { type: "string" },
    },
  });
  const calls = Number(values.calls);
  if (!Number.isInteger(calls) || calls < 1 || calls > callsMax) {
    throw new ForkdError("bad_request", `--calls needs 1 to ${callsMax}, not ${values.calls}`);
  }
  await using daemon = values.url === undefined ? await startDaemon() : null;
  const client = new Client({ url: values.url ?? daemon?.url ?? "" });
  const times = await onSandbox(client, values.tag, calls);
  const paths = resolveDataPaths(process.env, process.getuid?.() ?? 0);
  const host = await hostFacts(paths.dataDir);
  const result: ExecResult = { bench: "exec", format: 1, host, calls, ...times };
  print(result);
  if (values.json !== undefined) {
    const file = resolve(values.json);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, `${JSON.stringify(result, null, 2)}\n`);
  }
  return 0;
}
