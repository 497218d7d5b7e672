import type { AuditSink, OperationEntry } from "./audit-log.ts";
import { type Actor, OperationLog } from "./operation-log.ts";
import type { ForkService } from "./service.ts";

type AuditedSnapshots = Pick<
  ForkService,
  "bake" | "deleteSnapshot" | "compactSnapshot" | "pack" | "unpack"
>;

/**
 * What is done to snapshots, with an entry for each: for those who work without a daemon, whose
 * requests tell the same.
 */
export function auditSnapshots(
  service: AuditedSnapshots,
  sink: AuditSink<OperationEntry>,
  actor: Actor,
): AuditedSnapshots {
  const log = new OperationLog(sink);
  const done = async <T>(
    operation: OperationEntry["operation"],
    tag: string,
    work: Promise<T>,
  ): Promise<T> => {
    const about = { operation, snapshot_tag: tag };
    const result = await log.orFailure(actor, about, work);
    log.write(actor, { ...about, outcome: "ok" });
    return result;
  };
  return {
    bake: (request, progress) => done("bake", request.tag, service.bake(request, progress)),
    deleteSnapshot: (tag, mode) => done("delete", tag, service.deleteSnapshot(tag, mode)),
    compactSnapshot: (from, to) => done("compact", to, service.compactSnapshot(from, to)),
    pack: (order) => done("pack", order.tag, service.pack(order)),
    unpack: async (order) => {
      const about = { operation: "unpack", snapshot_tag: order.tag ?? "" } as const;
      const report = await log.orFailure(actor, about, service.unpack(order));
      // The name is the pack's own when nobody gave one.
      log.write(actor, { ...about, snapshot_tag: report.tag, outcome: "ok" });
      return report;
    },
  };
}
