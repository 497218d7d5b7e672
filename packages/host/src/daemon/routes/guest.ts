import { limits } from "@forkd/api";
import type { ForkService } from "../../fork/service.ts";
import { requestGate } from "../gate.ts";
import type { RouteHandlers } from "../register.ts";
import { prefixFaults } from "./fault-prefix.ts";

type GuestRoutes = Pick<RouteHandlers, "pingSandbox" | "execSandbox" | "evalSandbox">;

/** What runs inside a sandbox. All three share the places, because each holds an agent stream. */
export function guestRoutes(service: ForkService): GuestRoutes {
  const calls = requestGate(limits.concurrentExecsMax, "guest calls");
  return {
    pingSandbox: ({ params }) => calls.run(() => service.ping(params.id)),
    execSandbox: ({ params, body }) =>
      calls.run(() => prefixFaults("exec", () => service.exec(params.id, body))),
    evalSandbox: ({ params, body }) =>
      calls.run(() => prefixFaults("eval", () => service.eval(params.id, body))),
  };
}
