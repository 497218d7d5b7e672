import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type BranchMode, branchModeSchema, ForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { Client } from "@forkd/sdk";
import { startDaemon } from "./daemon.ts";
import { type HostFacts, hostFacts } from "./facts.ts";
import { GuestLoad } from "./guest-load.ts";
import { writeResult } from "./result-file.ts";
import { type Spread, spread } from "./stats.ts";
import { type StopAndSave, stopAndSave } from "./stop-and-save.ts";
import { formatTable, mib, ms, times } from "./table.ts";

/** One mode at one amount of changed memory. */
interface BranchRow {
  readonly mode: BranchMode;
  readonly dirty_mib: number;
  /** Between the engine's own events for stop and go. */
  readonly pause_ms: Spread | null;
  /** From the request to the answer: the snapshot is complete. */
  readonly total_ms: Spread | null;
  /** The longest wait of a thread that ticks every millisecond, per branch, by the guest's clock. */
  readonly guest_gap_ms: Spread | null;
  /** Bytes on disk of the last branch. */
  readonly link_bytes: number;
  /** The pause of the first and of the tenth branch of this guest. */
  readonly first_ms: number | null;
  readonly tenth_ms: number | null;
}

interface BranchResult {
  readonly bench: "branch";
  readonly format: 1;
  readonly host: HostFacts;
  readonly count: number;
  readonly rows: readonly BranchRow[];
  /** From the request to the answer of live branches that are not waited for, at the most changed. */
  readonly no_wait_ms: Spread | null;
  /** The same guests saved by the VMM alone: stopped until all its memory is in a file. */
  readonly peer: readonly (StopAndSave & { readonly dirty_mib: number })[];
}

interface Options {
  readonly tag: string;
  readonly count: number;
  readonly modes: readonly BranchMode[];
  readonly dirtyMib: readonly number[];
  readonly peer: boolean;
  readonly json: string | undefined;
}

const requestTimeoutMs = 600_000;
const countMax = 10_000;
const tenth = 10;
const lookEveryMs = 20;

/** Branches a guest that keeps writing, in every mode. Resolves to the exit code. */
export async function benchBranch(args: readonly string[]): Promise<number> {
  const options = parseOptions(args);
  await using daemon = await startDaemon();
  const client = new Client({ url: daemon.url, timeoutMs: requestTimeoutMs });
  const rows: BranchRow[] = [];
  const peer: BranchResult["peer"][number][] = [];
  for (const dirtyMib of options.dirtyMib) {
    const plan = { client, tag: options.tag, dirtyMib };
    for (const mode of options.modes) {
      const row = await withLoad(plan, (id, load) =>
        measureMode(client, { id, load, mode, dirtyMib, count: options.count }),
      );
      rows.push(row);
      console.error(`${mode}, ${dirtyMib} MiB changed: pause p99 ${ms(row.pause_ms?.p99)} ms`);
    }
    if (options.peer) {
      const saved = await withLoad(plan, (id) => stopAndSave(client, id));
      peer.push({ ...saved, dirty_mib: dirtyMib });
    }
  }
  const mostMib = Math.max(...options.dirtyMib);
  const noWaitMs = await withLoad({ client, tag: options.tag, dirtyMib: mostMib }, (id) =>
    measureNoWait(client, id, options.count),
  );
  const paths = resolveDataPaths(process.env, process.getuid?.() ?? 0);
  const host = await hostFacts(paths.dataDir);
  const result: BranchResult = {
    bench: "branch",
    format: 1,
    host,
    count: options.count,
    rows,
    no_wait_ms: spread(noWaitMs),
    peer,
  };
  print(result);
  if (options.json !== undefined) await writeResult(options.json, result);
  return 0;
}

interface LoadPlan {
  readonly client: Client;
  readonly tag: string;
  readonly dirtyMib: number;
}

async function withLoad<T>(
  { client, tag, dirtyMib }: LoadPlan,
  work: (id: string, load: GuestLoad) => Promise<T>,
): Promise<T> {
  const [sandbox] = await client.createSandboxes({ body: { snapshot_tag: tag, n: 1 } });
  if (sandbox === undefined) throw new ForkdError("internal", "the daemon spawned nothing");
  try {
    return await work(sandbox.id, await GuestLoad.start(client, sandbox.id, dirtyMib));
  } finally {
    await client.deleteSandbox({ params: { id: sandbox.id } });
  }
}

interface ModePlan {
  readonly id: string;
  readonly load: GuestLoad;
  readonly mode: BranchMode;
  readonly dirtyMib: number;
  readonly count: number;
}

async function measureMode(client: Client, plan: ModePlan): Promise<BranchRow> {
  const pauses: number[] = [];
  const totals: number[] = [];
  const gaps: number[] = [];
  let linkBytes = 0;
  for (let turn = 0; turn < plan.count; turn += 1) {
    const tag = `bench-${plan.mode}-${plan.dirtyMib}-${turn}`;
    await plan.load.takeGapMs();
    const started = performance.now();
    const info = await client.branchSandbox({
      params: { id: plan.id },
      body: { tag, mode: plan.mode },
    });
    totals.push(performance.now() - started);
    gaps.push(await plan.load.takeGapMs());
    pauses.push((info.pause_us ?? Number.NaN) / 1000);
    linkBytes = info.memory_physical_bytes ?? 0;
    await client.deleteSnapshot({ params: { tag } });
  }
  return {
    mode: plan.mode,
    dirty_mib: plan.dirtyMib,
    pause_ms: spread(pauses),
    total_ms: spread(totals),
    guest_gap_ms: spread(gaps),
    link_bytes: linkBytes,
    first_ms: pauses[0] ?? null,
    tenth_ms: pauses[tenth - 1] ?? null,
  };
}

/** How soon the answer comes when nobody waits for the snapshot; each one is awaited afterwards. */
async function measureNoWait(client: Client, id: string, count: number): Promise<number[]> {
  const answers: number[] = [];
  for (let turn = 0; turn < count; turn += 1) {
    const tag = `bench-no-wait-${turn}`;
    const started = performance.now();
    await client.branchSandbox({ params: { id }, body: { tag, mode: "live", wait: false } });
    answers.push(performance.now() - started);
    await untilReady(client, tag);
    await client.deleteSnapshot({ params: { tag } });
  }
  return answers;
}

async function untilReady(client: Client, tag: string): Promise<void> {
  for (;;) {
    const info = (await client.listSnapshots()).find((item) => item.tag === tag);
    if (info?.status === "ready") return;
    if (info?.status !== "writing") {
      throw new ForkdError("engine_failed", info?.warning ?? `${tag} is gone`);
    }
    await sleep(lookEveryMs);
  }
}

function print({ rows, peer, count, no_wait_ms: noWait }: BranchResult): void {
  const header = ["mode", "changed", "p50", "p95", "p99", "max", "1st", "10th"];
  const lines = rows.map((row) => [
    row.mode,
    `${row.dirty_mib} MiB`,
    ...[row.pause_ms?.p50, row.pause_ms?.p95, row.pause_ms?.p99, row.pause_ms?.max].map(ms),
    ms(row.first_ms),
    ms(row.tenth_ms),
  ]);
  console.log(`pause, ms, over ${count} branches of a guest that keeps writing\n`);
  console.log(formatTable(header, lines));
  const more = rows.map((row) => {
    const saved = peer.find((item) => item.dirty_mib === row.dirty_mib);
    const ratio = saved && row.pause_ms ? saved.pause_ms / row.pause_ms.p50 : null;
    return [
      row.mode,
      `${row.dirty_mib} MiB`,
      ms(row.total_ms?.p50),
      ms(row.total_ms?.p99),
      ms(row.guest_gap_ms?.p50),
      ms(row.guest_gap_ms?.max),
      mib(row.link_bytes),
      times(ratio),
    ];
  });
  console.log(
    "\ntotal and the guest's own view, ms; the peer stops the guest for the whole copy\n",
  );
  const head = [
    "mode",
    "changed",
    "total p50",
    "p99",
    "gap p50",
    "max",
    "disk MiB",
    "peer pause / ours",
  ];
  console.log(formatTable(head, more));
  console.log(
    `\nwithout waiting: answered in ${ms(noWait?.p50)} ms (p50), ${ms(noWait?.max)} ms (max)`,
  );
}

function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      tag: { type: "string", default: "quickstart" },
      count: { type: "string", default: "30" },
      modes: { type: "string", default: "full,diff,live" },
      dirty: { type: "string", default: "0,10,100,300" },
      "no-peer": { type: "boolean", default: false },
      json: { type: "string" },
    },
  });
  const count = Number(values.count);
  if (!Number.isInteger(count) || count < 1 || count > countMax) {
    throw new ForkdError("bad_request", `--count needs 1 to ${countMax}, not ${values.count}`);
  }
  const dirtyMib = values.dirty.split(",").map(Number);
  if (!dirtyMib.every((size) => Number.isInteger(size) && size >= 0)) {
    throw new ForkdError("bad_request", `--dirty needs MiB, not ${values.dirty}`);
  }
  const modes = branchModeSchema.array().safeParse(values.modes.split(","));
  if (!modes.success) throw new ForkdError("bad_request", `--modes: no such mode`);
  const { tag, json } = values;
  return { tag, count, modes: modes.data, dirtyMib, peer: !values["no-peer"], json };
}
