import { setTimeout as sleep } from "node:timers/promises";
import { parseSandboxId, type SnapshotTag, toForkdError } from "@forkd/api";
import { noLimits } from "@forkd/host/fork/asked-limits.ts";
import type { ForkService, SpawnedSandbox } from "@forkd/host/fork/service.ts";
import { findProcess, memoryUse } from "@forkd/host/linux/proc.ts";
import { type Spread, spread } from "./stats.ts";
import { evalCode, isRightAnswer } from "./task.ts";

export interface ForkOrder {
  readonly service: ForkService;
  readonly tag: SnapshotTag;
  readonly count: number;
  /** Null leaves the idle measurement out. */
  readonly idleMs: number | null;
}

/** One round of forks. Times are milliseconds from the spawn call. */
export interface ForkRound {
  readonly count: number;
  readonly verified: number;
  readonly total_ms: number;
  /** From the spawn call to the child's first right answer. */
  readonly answer_ms: Spread | null;
  readonly restored_ms: Spread | null;
  readonly identity_ms: Spread | null;
  readonly eval_ms: Spread | null;
  readonly unique_bytes: Spread | null;
  readonly proportional_bytes: Spread | null;
  /** Percent of one core that one idle child takes. */
  readonly idle_core_percent: Spread | null;
  readonly failures: readonly string[];
}

interface Answer {
  readonly answerMs: number;
  readonly evalMs: number;
}

/** Clock ticks of /proc/PID/stat a second: USER_HZ, fixed at 100 on x86_64 (proc(5)). */
const ticksPerSecond = 100;
const evalTimeoutSecs = 120;
/** After the evals, so that what they stirred up has settled. */
const settleMs = 1_000;

/** Forks, asks every child as soon as it is there, looks at what it holds, and kills all. */
export async function measureForks(order: ForkOrder): Promise<ForkRound> {
  const { service, tag, count } = order;
  const started = performance.now();
  const failures: string[] = [];
  const asked: Promise<Answer | null>[] = [];
  const onChild = ({ info }: SpawnedSandbox): void => {
    asked.push(ask(service, info.id, { started, failures }));
  };
  const request = { tag, count, limits: noLimits, minIsolation: null, onChild };
  let children: SpawnedSandbox[];
  try {
    children = await service.spawn(request);
  } catch (error) {
    return failedRound(count, performance.now() - started, toForkdError(error).message);
  }
  try {
    const answers = (await Promise.all(asked)).filter((answer) => answer !== null);
    const totalMs = performance.now() - started;
    const memory = await Promise.all(pidsOf(children).map((pid) => memoryUse(pid)));
    const idle = order.idleMs === null ? [] : await measureIdle(children, order.idleMs);
    return {
      count,
      verified: answers.length,
      total_ms: totalMs,
      answer_ms: spread(answers.map(({ answerMs }) => answerMs)),
      restored_ms: spread(children.map(({ timings }) => timings.restoredMs)),
      identity_ms: spread(children.map(({ timings }) => timings.identityMs)),
      eval_ms: spread(answers.map(({ evalMs }) => evalMs)),
      unique_bytes: spread(memory.map(({ uniqueBytes }) => uniqueBytes)),
      proportional_bytes: spread(memory.map(({ proportionalBytes }) => proportionalBytes)),
      idle_core_percent: spread(idle),
      failures,
    };
  } finally {
    await Promise.all(children.map(({ info }) => service.kill(parseSandboxId(info.id))));
  }
}

function failedRound(count: number, totalMs: number, failure: string): ForkRound {
  return {
    count,
    verified: 0,
    total_ms: totalMs,
    answer_ms: null,
    restored_ms: null,
    identity_ms: null,
    eval_ms: null,
    unique_bytes: null,
    proportional_bytes: null,
    idle_core_percent: null,
    failures: [failure],
  };
}

const pidsOf = (children: readonly SpawnedSandbox[]): number[] =>
  children.map(({ info }) => info.pid).filter((pid) => pid !== null);

interface Round {
  readonly started: number;
  readonly failures: string[];
}

async function ask(service: ForkService, id: string, round: Round): Promise<Answer | null> {
  const asked = performance.now();
  try {
    const request = { code: evalCode, timeout_secs: evalTimeoutSecs };
    const result = await service.eval(parseSandboxId(id), request);
    const now = performance.now();
    const text = result.result_json ?? result.result ?? "";
    if (result.error === null && isRightAnswer(text)) {
      return { answerMs: now - round.started, evalMs: now - asked };
    }
    round.failures.push(`${id}: ${result.error ?? `answered ${text.slice(0, 80)}`}`);
  } catch (error) {
    round.failures.push(`${id}: ${toForkdError(error).message}`);
  }
  return null;
}

async function measureIdle(
  children: readonly SpawnedSandbox[],
  windowMs: number,
): Promise<number[]> {
  await sleep(settleMs);
  const pids = pidsOf(children);
  const ticks = (): number[] => pids.map((pid) => findProcess(pid)?.cpuTicks ?? Number.NaN);
  const before = ticks();
  const started = performance.now();
  await sleep(windowMs);
  const seconds = (performance.now() - started) / 1000;
  const after = ticks();
  return after.map((value, i) => ((value - (before[i] ?? 0)) / ticksPerSecond / seconds) * 100);
}
