import { ForkdError, parseSandboxId, toForkdError } from "@forkd/api";
import type { Vm } from "../engine/engine.ts";
import { isAlive, type ProcessIdentity } from "../linux/proc.ts";
import { AgentLink } from "./agent-link.ts";
import { type Child, StartFailure, type StartScope } from "./child.ts";
import type { ForkDeps } from "./deps.ts";
import type { Journal } from "./journal.ts";
import { claimWorkDir } from "./work-dir.ts";

/** Each takes the engine's own deadlines; all together less than a start may last. */
const attemptsMax = 8;

/**
 * Takes over a running VM whose owner is gone. Its agent is attached when it is first needed: one
 * that is silent holds up nobody. Throws StartFailure when the VM is gone or does not answer.
 */
export async function adoptChild(
  deps: ForkDeps,
  journal: Journal,
  scope: StartScope,
): Promise<Child> {
  const { process } = journal.record;
  if (process === null) throw new ForkdError("internal", "the record names no process");
  try {
    return await adopt(deps, journal, { ...scope, process });
  } catch (error) {
    throw new StartFailure(isAlive(process) ? "engine_crash" : "lost", error);
  }
}

interface AdoptScope extends StartScope {
  readonly process: ProcessIdentity;
}

async function adopt(deps: ForkDeps, journal: Journal, scope: AdoptScope): Promise<Child> {
  const vm = await adoptVm(deps, journal, scope);
  scope.holdVm(vm);
  await deps.disks.admit(vm, journal.record.info.id, []);
  // Whatever the last owner had paused it for is not going on any more.
  await vm.resume();
  const { info } = journal.record;
  const limits = await deps.limits.check(parseSandboxId(info.id), info.limits);
  await journal.write({ info: { ...info, limits, memory_limit_mib: limits.memory_limit_mib } });
  await claimWorkDir(journal.workDir, deps.owner);
  deps.onStep("adopted");
  return { vm, journal, agent: new AgentLink({ vm, journal, onStep: deps.onStep, session: null }) };
}

/** A host under load may let a monitor wait: as long as the process lives, it is asked again. */
async function adoptVm(
  { engines, log }: ForkDeps,
  { record, workDir }: Journal,
  { process, signal }: AdoptScope,
): Promise<Vm> {
  const engine = engines.get(record.info.engine);
  for (let attempt = 1; ; attempt += 1) {
    signal.throwIfAborted();
    try {
      return await engine.adopt({ process, workDir });
    } catch (error) {
      if (!isAlive(process) || attempt >= attemptsMax) throw error;
      const { message } = toForkdError(error);
      log.warn("a sandbox is not adopted yet", { workDir, attempt, message });
    }
  }
}
