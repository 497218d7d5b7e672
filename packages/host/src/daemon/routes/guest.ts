import { limits } from "@forkd/api";
import type { ForkService } from "../../fork/service.ts";
import { requestGate, sandboxGate } from "../gate.ts";
import type { RouteHandlers } from "../register.ts";
import { prefixFaults } from "./fault-prefix.ts";

type GuestRoutes = Pick<RouteHandlers, "pingSandbox" | "execSandbox" | "evalSandbox">;

/**
 * What runs inside a sandbox. All three share the places, because each holds an agent stream. A
 * sandbox that is full of commands can still be asked whether it lives.
 */
export function guestRoutes(service: ForkService): GuestRoutes {
  const calls = requestGate(limits.concurrentExecsMax, "guest calls");
  const commands = sandboxGate(limits.execsPerSandboxMax, "commands");
  const pings = sandboxGate(limits.pingsPerSandboxMax, "pings");
  return {
    pingSandbox: ({ params: { id } }) => calls.run(() => pings.run(id, () => service.ping(id))),
    execSandbox: ({ params: { id }, body, signal }) =>
      calls.run(() =>
        commands.run(id, () => prefixFaults("exec", () => service.exec(id, body, signal))),
      ),
    evalSandbox: ({ params: { id }, body, signal }) =>
      calls.run(() =>
        commands.run(id, () => prefixFaults("eval", () => service.eval(id, body, signal))),
      ),
  };
}
