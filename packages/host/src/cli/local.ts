import type { AuditLog } from "../fork/audit-log.ts";
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
  const { resolveEngineSettings } = await import("../config/engine-settings.ts");
  const { paths, env } = context.settings;
  const opened = await openForkService({
    paths,
    engines: resolveEngineSettings(env),
    ...(env["PATH"] !== undefined && { programPath: env["PATH"] }),
    owner: "cli",
    stateFile: null,
    log: silentLogger,
  });
  await using audit = await openAudit(context);
  const service = audit === undefined ? opened : await auditedService(opened, audit);
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

/** The daemon's own log: who goes around the daemon is seen all the same. */
async function openAudit({ settings, output }: Context): Promise<AuditLog | undefined> {
  const { AuditLog } = await import("../fork/audit-log.ts");
  const { auditLogDefault } = await import("../config/data-paths.ts");
  const { silentLogger } = await import("../lib/log.ts");
  const path = settings.env["FORKD_AUDIT_LOG"] || auditLogDefault(settings.paths.dataDir);
  try {
    return await AuditLog.open(path, silentLogger);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    output.warn(`what this command does is not audited: ${reason}`);
    return undefined;
  }
}

async function auditedService(service: ForkService, audit: AuditLog): Promise<ForkService> {
  const { Operations } = await import("../fork/operations.ts");
  const remote = `uid:${process.getuid?.() ?? -1}`;
  const actor = { principal: "cli", remote, requestId: null } as const;
  const { auditSnapshots } = await import("../fork/snapshot-operations.ts");
  const sandboxes = new Operations(service, audit).as(actor);
  return { ...service, ...sandboxes, ...auditSnapshots(service, audit, actor) };
}
