import { ForkdError, limits, type SandboxInfo } from "@forkd/api";
import { askedLimits } from "../../fork/asked-limits.ts";
import { egressOf } from "../../fork/asked-network.ts";
import type { Operations } from "../../fork/operations.ts";
import type { ForkService } from "../../fork/service.ts";
import { requestGate } from "../gate.ts";
import type { RouteHandlers } from "../register.ts";
import { prefixFaults } from "./fault-prefix.ts";

type SandboxRoutes = Pick<
  RouteHandlers,
  | "listSandboxes"
  | "createSandboxes"
  | "getSandbox"
  | "getSandboxLogs"
  | "deleteSandbox"
  | "branchSandbox"
>;

export function sandboxRoutes(service: ForkService, operations: Operations): SandboxRoutes {
  const spawns = requestGate(limits.concurrentSpawnsMax, "spawn requests");
  const logs = requestGate(limits.concurrentLogsMax, "requests for logs");
  return {
    listSandboxes: async ({ query }) => {
      const live = service.listSandboxes();
      return query.ended ? [...live, ...(await service.listEndedSandboxes())] : live;
    },
    createSandboxes: async ({ body, signal, actor }) => {
      const spawned = await spawns.run(() =>
        // The prefix is upstream's; its clients and its runbook search for it.
        prefixFaults("restore_many", () =>
          operations.as(actor).spawn({
            tag: body.snapshot_tag,
            count: body.n,
            limits: askedLimits(body),
            minIsolation: body.min_isolation ?? null,
            ...egressOf(body),
            ...(body.scratch_mib == null ? {} : { scratchMib: body.scratch_mib }),
            signal,
          }),
        ),
      );
      return spawned.map(({ info }) => info);
    },
    branchSandbox: ({ params, body, actor }) =>
      prefixFaults("branch", () => operations.as(actor).branch(params.id, body)),
    getSandbox: async ({ params, query }) => {
      const info = await service.getSandbox(params.id);
      if (!query.ended) requireNotDeleted(info);
      return info;
    },
    getSandboxLogs: ({ params, query }) =>
      logs.run(() => service.sandboxLog(params.id, query.lines)),
    deleteSandbox: async ({ params, actor }) => {
      await operations.as(actor).kill(params.id);
      return undefined;
    },
  };
}

/** Upstream's clients expect that a sandbox is not there any more once they have deleted it. */
function requireNotDeleted({ id, state, end }: SandboxInfo): void {
  if (state !== "ended" || end?.reason !== "killed") return;
  const at = new Date(end.at_unix_ms).toISOString();
  const message = `sandbox '${id}' not found: it ended at ${at} (${end.reason}: ${end.detail})`;
  throw new ForkdError("sandbox_not_found", message, {
    hint: "ask with ?ended=true for what is remembered of it",
  });
}
