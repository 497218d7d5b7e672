import type { ForkdError } from "@forkd/api";
import { AgentSession } from "../agent/session.ts";
import type { Vm } from "../engine/engine.ts";

/**
 * Connects to a VM's agent and starts a session. The VM need not run yet: what is written waits
 * until the guest reads it.
 */
export async function attachAgent(
  vm: Vm,
  token: Uint8Array,
  helloTimeoutMs: number,
): Promise<AgentSession> {
  return AgentSession.attach(await vm.openChannel(), { token, helloTimeoutMs });
}

/**
 * Waits for `work`, or fails with `onDeath` when the VM ends first: a guest that is gone will not
 * answer, and how it went is the better message.
 */
export async function whileAlive<T>(
  vm: Vm,
  work: Promise<T>,
  onDeath: () => Promise<ForkdError> | ForkdError,
): Promise<T> {
  const died = vm.ended.then(async (): Promise<never> => {
    throw await onDeath();
  });
  died.catch(() => undefined);
  try {
    return await Promise.race([work, died]);
  } catch (error) {
    // A broken channel is seen a moment before the end of the process that broke it.
    if (await endsSoon(vm)) throw await onDeath();
    throw error;
  } finally {
    work.catch(() => undefined);
  }
}

const endsSoonMs = 200;

function endsSoon(vm: Vm): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), endsSoonMs);
  void vm.ended.then(() => resolve(true));
  return promise.finally(() => clearTimeout(timer));
}
