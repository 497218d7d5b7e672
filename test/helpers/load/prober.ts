/**
 * A process that asks for /healthz at a steady pace, as a monitor does, and has nothing else to do.
 *
 *   prober.ts URL
 *
 * It looks at the daemon, not at the host: it goes before all others on the processors where it
 * may, so that what it measures is not how long itself waited for one. Told anything, it answers
 * with what it measured and ends.
 */
import { writeFileSync } from "node:fs";
import { Agent, get } from "node:http";
import { setPriority } from "node:os";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";

/** From the answer of one check to the next. */
const paceMs = 25;
const deadlineMs = 30_000;
/** Before the daemon, which goes before its guests. */
const nice = -15;
const lagResolutionMs = 1;

/** What it tells at its end; milliseconds. */
export interface Probed {
  readonly timesMs: readonly number[];
  /** How late its own event loop was in one of a hundred times: the measure's own error. */
  readonly ownLagP99Ms: number;
}

const url = process.argv[2] ?? "";
const agent = new Agent({ keepAlive: true, maxSockets: 1 });

function ask(): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = get(`${url}/healthz`, { agent, timeout: deadlineMs }, (response) => {
      response.resume();
      response.once("end", () => {
        if (response.statusCode === 200) resolve();
        else reject(new Error(`healthz answered ${response.statusCode}`));
      });
    });
    request.once("timeout", () => request.destroy(new Error("healthz did not answer")));
    request.once("error", reject);
  });
}

function goFirst(): void {
  try {
    setPriority(nice);
    writeFileSync("/proc/self/autogroup", String(nice));
  } catch {
    // Only root may; others measure with their own waits in it, and ownLagP99Ms says so.
  }
}

goFirst();
const lag = monitorEventLoopDelay({ resolution: lagResolutionMs });
lag.enable();
const timesMs: number[] = [];
let isOver = false;
process.once("message", () => {
  isOver = true;
});
// Whoever started it is gone.
process.once("disconnect", () => process.exit());
while (!isOver) {
  const asked = performance.now();
  await ask();
  timesMs.push(performance.now() - asked);
  await sleep(paceMs);
}
agent.destroy();
const ownLagP99Ms = Math.max(0, lag.percentile(99) / 1e6 - lagResolutionMs);
const probed: Probed = { timesMs, ownLagP99Ms };
process.send?.(probed, undefined, undefined, () => process.disconnect());
