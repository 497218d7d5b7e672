import type { Socket } from "node:net";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { withDeadline } from "../../lib/deadline.ts";
import { isAlive, type ProcessIdentity, waitUntilGone } from "../../linux/proc.ts";
import type { AdoptSpec, Vm, VmEnd } from "../engine.ts";
import { logTail, type VmProcess } from "../process.ts";
import { qmpSocketName } from "./argv.ts";
import { openMonitor } from "./monitor.ts";
import { Qmp } from "./qmp.ts";
import { QemuVm } from "./vm.ts";

const stopTimeoutMs = 10_000;
/** From the close of the monitor to the end of the process. */
const lingerMs = 3_000;

/** Connects to the monitor that every VM of ours listens on for a later owner. */
export async function adoptQemu(spec: AdoptSpec): Promise<Vm> {
  if (!isAlive(spec.process)) throw gone(spec.process);
  const socket = await openMonitor(join(spec.workDir, qmpSocketName));
  const process = new AdoptedProcess(spec, socket);
  const qmp = new Qmp(socket);
  try {
    // Looked at again: between the first look and the connection the pid may have changed hands.
    if (!isAlive(spec.process)) throw gone(spec.process);
    await qmp.execute("qmp_capabilities");
  } catch (error) {
    process.abandon();
    qmp.close();
    throw error;
  }
  return new QemuVm({
    process,
    qmp,
    workDir: spec.workDir,
    timings: { processMs: 0, restoredMs: 0 },
    consoleTail: () => "",
  });
}

/** A VMM that another process started. The kernel closes its monitor when it ends: that is the event. */
class AdoptedProcess implements VmProcess {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  #stopped = false;
  #abandoned = false;

  constructor({ process, workDir }: AdoptSpec, monitor: Socket) {
    this.identity = process;
    this.ended = new Promise((resolve) => {
      monitor.once("close", () => resolve(this.#confirmEnd(workDir)));
    });
  }

  /** It was not taken over after all: the close of its monitor means nothing. */
  abandon(): void {
    this.#abandoned = true;
  }

  /** A VMM that lost its monitor and does not end is of no use to anybody. */
  async #confirmEnd(workDir: string): Promise<VmEnd> {
    if (!this.#abandoned && !(await waitUntilGone(this.identity, lingerMs))) {
      process.kill(this.identity.pid, "SIGKILL");
      await waitUntilGone(this.identity, lingerMs);
    }
    return {
      stopped: this.#stopped,
      exitCode: null,
      signal: null,
      guestOff: null,
      log: logTail(workDir),
    };
  }

  async stop(): Promise<VmEnd> {
    this.#stopped = true;
    if (isAlive(this.identity)) process.kill(this.identity.pid, "SIGKILL");
    return await withDeadline(this.ended, stopTimeoutMs, "ending the adopted VMM");
  }
}

function gone({ pid }: ProcessIdentity): ForkdError {
  return new ForkdError("engine_failed", `the VMM with pid ${pid} is gone`);
}
