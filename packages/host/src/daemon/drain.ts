import { ForkdError, parseSandboxId } from "@forkd/api";
import { AuditLog } from "../fork/audit-log.ts";
import { findDaemon } from "../fork/daemon-lock.ts";
import type { Opening } from "../fork/open-service.ts";
import { Operations } from "../fork/operations.ts";
import type { ForkService } from "../fork/service.ts";
import { withDeadline } from "../lib/deadline.ts";
import type { Logger } from "../lib/log.ts";
import { waitUntilGone } from "../linux/proc.ts";
import type { DaemonConfig } from "./config.ts";

/** Opens the service of a daemon, which adopts what an earlier one has left running. */
export type OpenService = (config: DaemonConfig, log: Logger) => Promise<Opening>;

export interface DrainOptions {
  readonly config: DaemonConfig;
  readonly timeoutMs: number;
  readonly openService: OpenService;
  readonly log: Logger;
}

/** A daemon that ends is no child of ours, so no event tells of it. */
const daemonLookMs = 50;

/**
 * Stops the daemon of a data directory and ends every sandbox of it; also those of a daemon that
 * has crashed or does not run. Throws deadline_exceeded, and what the service throws.
 */
export async function drainHost(options: DrainOptions): Promise<void> {
  const { config, timeoutMs, log } = options;
  const deadline = performance.now() + timeoutMs;
  const daemon = await findDaemon(config.paths);
  if (daemon !== undefined) {
    process.kill(daemon.pid, "SIGUSR2");
    if (!(await waitUntilGone(daemon, timeoutMs, daemonLookMs))) throw tooSlow(daemon.pid);
  }
  // The daemon has done it, unless it died on the way.
  const { service, takenOver } = await options.openService(config, log);
  await takenOver;
  await using audit = await AuditLog.open(config.auditLogPath, log);
  const leftMs = Math.max(1, deadline - performance.now());
  await withDeadline(endSandboxes(service, audit), leftMs, "ending the sandboxes");
}

function tooSlow(pid: number): ForkdError {
  const message = `the daemon with pid ${pid} has not ended its sandboxes in time`;
  return new ForkdError("deadline_exceeded", message, {
    hint: "see its log: journalctl -u forkd-controller; then drain again with a longer --timeout",
  });
}

/**
 * Ends a service and all of its sandboxes, each audited like one that a request ends. Whatever
 * comes into being meanwhile ends with the service.
 */
export async function endSandboxes(service: ForkService, audit: AuditLog): Promise<void> {
  const actor = { principal: "local", remote: `pid:${process.pid}`, requestId: null } as const;
  const { kill } = new Operations(service, audit).as(actor);
  const ids = service.listSandboxes().map(({ id }) => parseSandboxId(id));
  await Promise.allSettled(ids.map((id) => kill(id)));
  await service.close("kill");
}
