import { limits } from "@forkd/api";
import { askedLimits } from "../../fork/asked-limits.ts";
import type { ForkService } from "../../fork/service.ts";
import { requestGate } from "../gate.ts";
import type { RouteHandlers } from "../register.ts";
import { prefixFaults } from "./fault-prefix.ts";

type SandboxRoutes = Pick<
  RouteHandlers,
  "listSandboxes" | "createSandboxes" | "getSandbox" | "deleteSandbox" | "branchSandbox"
>;

export function sandboxRoutes(service: ForkService): SandboxRoutes {
  const spawns = requestGate(limits.concurrentSpawnsMax, "spawn requests");
  return {
    listSandboxes: () => service.listSandboxes(),
    createSandboxes: async ({ body }) => {
      const spawned = await spawns.run(() =>
        // The prefix is upstream's; its clients and its runbook search for it.
        prefixFaults("restore_many", () =>
          service.spawn({
            tag: body.snapshot_tag,
            count: body.n,
            limits: askedLimits(body),
            minIsolation: body.min_isolation ?? null,
          }),
        ),
      );
      return spawned.map(({ info }) => info);
    },
    branchSandbox: ({ params, body }) =>
      prefixFaults("branch", () => service.branch(params.id, body)),
    getSandbox: ({ params }) => service.getSandbox(params.id),
    deleteSandbox: async ({ params }) => {
      await service.kill(params.id);
      return undefined;
    },
  };
}
