/**
 * `daemon.ts serve ...`: forkd-controller that can be told where to die. It loads its code, then
 * waits for one line on standard input, a CrashOrder, and serves. The product has no such switch:
 * it only tells its steps, and this hook sends SIGKILL to its own process.
 */
import { writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { toForkdError } from "@forkd/api";
import { parseCommand } from "@forkd/host/daemon/config.ts";
import { serve } from "@forkd/host/daemon/serve.ts";
import { beginForkService } from "@forkd/host/fork/open-service.ts";
import { type JournalStep, journalSteps } from "@forkd/host/fork/steps.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { openServiceManager } from "@forkd/host/linux/service-manager.ts";
import { z } from "zod";

const orderSchema = z.object({ step: z.enum(journalSteps).nullable(), occurrence: z.int().min(1) });
/** Null runs until a signal ends it. */
export type CrashOrder = z.infer<typeof orderSchema>;

function crashAt({ step, occurrence }: CrashOrder): (reached: JournalStep) => void {
  let left = occurrence;
  return (reached) => {
    if (reached !== step) return;
    left -= 1;
    if (left > 0) return;
    writeSync(1, `crash ${reached}\n`);
    process.kill(process.pid, "SIGKILL");
  };
}

async function run(order: CrashOrder): Promise<void> {
  const command = parseCommand(process.argv.slice(2), process.env, process.getuid?.() ?? -1);
  if (command.kind !== "serve") throw new Error("the only command is serve");
  const stop = new AbortController();
  process.on("SIGTERM", () => stop.abort());
  // Whoever started it is gone, so nobody would end it.
  process.stdin.on("close", () => stop.abort());
  await serve({
    config: command.config,
    version: "crash",
    openService: ({ paths, statePath, identityTimeoutMs }, log) =>
      beginForkService({
        paths,
        owner: "daemon",
        log,
        stateFile: statePath,
        identityTimeoutMs,
        onStep: crashAt(order),
      }),
    log: silentLogger,
    announce: (url) => writeSync(1, `listening on ${url}\n`),
    manager: openServiceManager({}, silentLogger),
    signals: {
      stop: stop.signal,
      hurry: stop.signal,
      endSandboxes: new AbortController().signal,
      onReload: () => undefined,
    },
  });
}

writeSync(1, "warm\n");
for await (const line of createInterface({ input: process.stdin })) {
  try {
    await run(orderSchema.parse(JSON.parse(line)));
    process.exit(0);
  } catch (thrown) {
    const error = toForkdError(thrown);
    writeSync(2, `error: ${error.message}\nhint: ${error.hint}\n`);
    process.exit(1);
  }
}
