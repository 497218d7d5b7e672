import type { AuditLog, OperationEntry } from "../fork/audit-log.ts";
import type { Actor } from "../fork/operation-log.ts";
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

type Facts = Pick<OperationEntry, "operation" | "snapshot_tag" | "address" | "sha256">;

/** What an entry tells: what is known before, and of the result. */
export interface AuditedWork<T> {
  readonly about: Facts;
  readonly factsOf: (result: T) => Partial<Facts>;
}

/** Does what no service does, with an entry in the audit log that has what came of it. */
export async function withAudit<T>(
  context: Context,
  { about, factsOf }: AuditedWork<T>,
  work: () => Promise<T>,
): Promise<T> {
  await using audit = await openAudit(context);
  if (audit === undefined) return await work();
  const { OperationLog } = await import("../fork/operation-log.ts");
  const log = new OperationLog(audit);
  const result = await log.orFailure(actor(), about, work());
  log.write(actor(), { ...about, ...factsOf(result), outcome: "ok" });
  return result;
}

function actor(): Actor {
  return { principal: "cli", remote: `uid:${process.getuid?.() ?? -1}`, requestId: null };
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
  const { auditSnapshots } = await import("../fork/snapshot-operations.ts");
  const sandboxes = new Operations(service, audit).as(actor());
  return { ...service, ...sandboxes, ...auditSnapshots(service, audit, actor()) };
}
