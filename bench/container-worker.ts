/**
 * Runs crun containers and prints a WorkerReport. Started by containers.ts inside the mount
 * namespace that it prepares; reads `{order, spec}` from standard input.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { toForkdError } from "@forkd/api";
import { run } from "@forkd/host/lib/exec.ts";
import type { WorkerOrder, WorkerReport } from "./containers.ts";
import { isRightAnswer } from "./task.ts";

const containerTimeoutMs = 120_000;

type ContainerReport = WorkerReport["children"][number];

async function runContainer(order: WorkerOrder, name: string, started: number) {
  const begun = performance.now();
  const where = ["--cgroup-manager=disabled", "--root", order.stateDir];
  const argv = ["crun", ...where, "run", "--bundle", order.bundleDir, name];
  let failure: string | null = null;
  try {
    const { stdout } = await run(argv, { timeoutMs: containerTimeoutMs });
    if (!isRightAnswer(stdout)) failure = `answered ${stdout.slice(0, 80)}`;
  } catch (error) {
    failure = toForkdError(error).message;
  }
  const now = performance.now();
  return { answerMs: now - started, ownMs: now - begun, failure };
}

const { order, spec } = JSON.parse(await text(process.stdin)) as {
  readonly order: WorkerOrder;
  readonly spec: object;
};
writeFileSync(join(order.bundleDir, "config.json"), JSON.stringify(spec));

const started = performance.now();
const children: ContainerReport[] = [];
const indices = Array.from({ length: order.count }, (_, index) => index).values();
await Promise.all(
  Array.from({ length: order.concurrency }, async () => {
    for (const index of indices) {
      children.push(await runContainer(order, `bench-${index}`, started));
    }
  }),
);
const report: WorkerReport = { totalMs: performance.now() - started, children };
process.stdout.write(JSON.stringify(report));
