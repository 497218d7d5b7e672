import type { ForkService } from "../fork/service.ts";
import type { Context } from "./context.ts";
import { teardownMs, untilStopped } from "./interrupt.ts";

/** Less than the time after which the process is ended in any case. */
const closeMs = teardownMs - 1500;
/** For the work that was stopped to see that its guests are gone and to tidy up after itself. */
const settleMs = 1000;

/**
 * Runs `work` with a service of this process, without a daemon. Whatever it started ends before
 * this returns, also when a signal stops the work.
 */
export async function withService<T>(
  context: Context,
  work: (service: ForkService) => Promise<T>,
): Promise<T> {
  const { openForkService } = await import("../fork/open-service.ts");
  const { silentLogger } = await import("../lib/log.ts");
  const { withDeadline } = await import("../lib/deadline.ts");
  const { paths } = context.settings;
  const service = await openForkService({
    paths,
    owner: "cli",
    stateFile: null,
    log: silentLogger,
  });
  const working = work(service);
  try {
    return await untilStopped(working, context.signal);
  } finally {
    const closed = service.close("kill");
    if (context.signal.aborted) {
      await withDeadline(closed, closeMs, "ending the guests");
      const settled = working.catch(() => undefined);
      await withDeadline(settled, settleMs, "tidying up").catch(() => undefined);
    } else await closed;
  }
}
