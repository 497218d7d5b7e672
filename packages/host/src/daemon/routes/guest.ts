import { limits, parseSandboxId, type SandboxInfo } from "@forkd/api";
import { endedError } from "../../fork/sandbox.ts";
import type { ForkService } from "../../fork/service.ts";
import { type ExecSocketOptions, serveExec } from "../exec-socket.ts";
import { requestGate, sandboxGate } from "../gate.ts";
import type { RouteHandlers } from "../register.ts";
import { prefixFaults } from "./fault-prefix.ts";

type GuestRoutes = Pick<
  RouteHandlers,
  "pingSandbox" | "execSandbox" | "evalSandbox" | "streamExec" | "listExecs" | "deleteExec"
>;

/** The places of what runs inside sandboxes. */
export type GuestGates = ReturnType<typeof guestGates>;

/**
 * All share the places, because each holds an agent stream. A sandbox that is full of commands can
 * still be asked whether it lives.
 */
export function guestGates() {
  return {
    calls: requestGate(limits.concurrentExecsMax, "guest calls"),
    commands: sandboxGate(limits.execsPerSandboxMax, "commands"),
    pings: sandboxGate(limits.pingsPerSandboxMax, "pings"),
  };
}

/** What runs inside a sandbox, but for {@link evalStreams}. */
export function guestRoutes(
  service: ForkService,
  { calls, commands, pings }: GuestGates,
  stopping: AbortSignal,
): GuestRoutes {
  return {
    pingSandbox: ({ params: { id } }) => calls.run(() => pings.run(id, () => service.ping(id))),
    execSandbox: ({ params: { id }, body, signal }) =>
      calls.run(() =>
        commands.run(id, () => prefixFaults("exec", () => service.exec(id, body, signal))),
      ),
    streamExec: ({ params: { id }, accept }) =>
      calls.run(() =>
        commands.run(id, async () => {
          requireLive(await service.getSandbox(id));
          const open: ExecSocketOptions["open"] = (request, sink) =>
            service.openExec(id, request, sink);
          await serveExec(await accept(), { open, stopping });
        }),
      ),
    listExecs: ({ params: { id } }) => calls.run(() => pings.run(id, () => service.listExecs(id))),
    deleteExec: async ({ params: { id, exec_id } }) => {
      await calls.run(() => pings.run(id, () => service.deleteExec(id, exec_id)));
      return undefined;
    },
    evalSandbox: ({ params: { id }, body, signal }) =>
      calls.run(() =>
        commands.run(id, () => prefixFaults("eval", () => service.eval(id, body, signal))),
      ),
  };
}

/** Said before there is a socket, so that it is an answer like any other. */
function requireLive({ id, end }: SandboxInfo): void {
  if (end !== null) throw endedError(parseSandboxId(id), end);
}
