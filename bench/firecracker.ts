import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { ForkdError, limits } from "@forkd/api";
import { VmmBroker } from "@forkd/host/engine/broker.ts";
import type { RestoredVm } from "@forkd/host/engine/engine.ts";
import type { VmmProcess } from "@forkd/host/engine/process.ts";
import { type FirecrackerWorld, makeFirecrackerWorld } from "../test/helpers/firecracker-guest.ts";
import { type HostFacts, hostFacts } from "./facts.ts";
import { writeResult } from "./result-file.ts";
import { median, type Spread, spread } from "./stats.ts";
import { formatTable, ms } from "./table.ts";

interface FirecrackerRound {
  /** `floor`: only the start of a program, as every engine starts one. */
  readonly what: "floor" | "restore";
  readonly at_once: number;
  /** Time that the event loop was busy, a child. */
  readonly loop_ms: number;
  /** Of that what the loop's thread ran: without the time that a busy host took it away. */
  readonly thread_ms: number;
  readonly restored_ms: Spread | null;
}

interface FirecrackerResult {
  readonly bench: "firecracker";
  readonly format: 1;
  readonly host: HostFacts;
  readonly children: number;
  readonly rounds: readonly FirecrackerRound[];
}

const childrenDefault = 100;
const childrenMax = 1000;
const roundsEach = 3;
/** Until the code of a restore is compiled. */
const warmUpChildren = 30;

/** What restores cost this process, above a stand-in that does next to nothing. */
export async function benchFirecracker(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: { n: { type: "string" }, json: { type: "string" } },
  });
  const children = Number(values.n ?? childrenDefault);
  if (!Number.isInteger(children) || children < 1 || children > childrenMax) {
    throw new ForkdError("bad_request", `--n must be from 1 to ${childrenMax}`);
  }
  const dir = await mkdtemp(join(tmpdir(), "forkd-fcb-"));
  try {
    await using world = await makeFirecrackerWorld({ dir });
    await measure(world, { children: warmUpChildren, atOnce: 1 });
    const rounds: FirecrackerRound[] = [];
    for (const atOnce of [1, limits.concurrentRestoresMax]) {
      for (let round = 0; round < roundsEach; round += 1) {
        rounds.push(await measureFloor(world, { children, atOnce }));
        rounds.push(await measure(world, { children, atOnce }));
      }
    }
    const host = await hostFacts(dir);
    const result: FirecrackerResult = { bench: "firecracker", format: 1, host, children, rounds };
    print(result);
    if (values.json !== undefined) await writeResult(values.json, result);
    return 0;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

interface Order {
  readonly children: number;
  readonly atOnce: number;
}

/** Restores are measured, the ends are not; directories are made before. */
async function measure(world: FirecrackerWorld, order: Order): Promise<FirecrackerRound> {
  const vms: RestoredVm[] = [];
  const times = await measureLoop(world, order, async (workDir) => {
    vms.push(await restore(world, workDir));
  });
  await Promise.all(vms.map((vm) => vm.stop()));
  await removeDirs(world, order);
  const restored = spread(vms.map(({ timings }) => timings.restoredMs));
  return { what: "restore", ...times, restored_ms: restored };
}

/** The stand-in listens, and nobody speaks to it. */
async function measureFloor(world: FirecrackerWorld, order: Order): Promise<FirecrackerRound> {
  const broker = new VmmBroker();
  const started: VmmProcess[] = [];
  const argv = [world.fake.binary, "--api-sock", "fc.sock"];
  const rest = { dieWithParent: true, cgroups: [], sockets: 0, files: [], preload: null };
  const times = await measureLoop(world, order, async (workDir) => {
    started.push(await broker.start({ argv, workDir, ...rest, stdout: "nowhere" }));
  });
  await Promise.all(started.map((program) => program.stop()));
  await removeDirs(world, order);
  return { what: "floor", ...times, restored_ms: null };
}

async function measureLoop(
  { dir }: FirecrackerWorld,
  { children, atOnce }: Order,
  start: (workDir: string) => Promise<void>,
): Promise<Pick<FirecrackerRound, "at_once" | "loop_ms" | "thread_ms">> {
  const queue = Array.from({ length: children }, (_, i) => join(dir, `w${i}`));
  for (const workDir of queue) await mkdir(workDir);
  const worker = async (): Promise<void> => {
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) await start(next);
  };
  const cpu = process.threadCpuUsage();
  const loop = performance.eventLoopUtilization();
  await Promise.all(Array.from({ length: atOnce }, worker));
  const { active } = performance.eventLoopUtilization(loop);
  const { user, system } = process.threadCpuUsage(cpu);
  const threadMs = (user + system) / 1000;
  return { at_once: atOnce, loop_ms: active / children, thread_ms: threadMs / children };
}

async function removeDirs({ dir }: FirecrackerWorld, { children }: Order): Promise<void> {
  for (let i = 0; i < children; i += 1) await rm(join(dir, `w${i}`), { recursive: true });
}

function restore(
  { engine, frozen, rootImage }: FirecrackerWorld,
  workDir: string,
): Promise<RestoredVm> {
  const { machine, memory, vmstateFile } = frozen;
  const rest = { scratch: null, dieWithParent: true, cgroups: [], network: null };
  return engine.restore({ workDir, machine, rootImage, memory, vmstateFile, ...rest });
}

function print({ rounds, children }: FirecrackerResult): void {
  const header = ["what", "at once", "loop ms/child", "thread ms/child", "restored p50", "p95"];
  const rows = rounds.map((round) => [
    round.what,
    String(round.at_once),
    ms(round.loop_ms),
    ms(round.thread_ms),
    ms(round.restored_ms?.p50),
    ms(round.restored_ms?.p95),
  ]);
  console.log(formatTable(header, rows));
  for (const what of ["floor", "restore"] as const) {
    const own = rounds.filter((round) => round.what === what);
    const loop = ms(median(own.map((round) => round.loop_ms)));
    const thread = ms(median(own.map((round) => round.thread_ms)));
    console.log(
      `${what}: ${children} a round; medians a child: loop ${loop} ms, thread ${thread} ms`,
    );
  }
}
