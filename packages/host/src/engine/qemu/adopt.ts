import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { withDeadline } from "../../lib/deadline.ts";
import { isAlive, type ProcessIdentity, waitUntilGone } from "../../linux/proc.ts";
import type { AdoptSpec, Vm, VmEnd } from "../engine.ts";
import { logTail, type VmProcess } from "../process.ts";
import { qmpSocketName } from "./argv.ts";
import { Qmp } from "./qmp.ts";
import { QemuVm } from "./vm.ts";

const connectTimeoutMs = 10_000;
const stopTimeoutMs = 10_000;
/** From the close of the monitor to the end of the process. */
const lingerMs = 3_000;

/** Connects to the monitor that every VM of ours listens on for a later owner. */
export async function adoptQemu(spec: AdoptSpec): Promise<Vm> {
  if (!isAlive(spec.process)) throw gone(spec.process);
  const socket = await openMonitor(spec);
  const process = new AdoptedProcess(spec, socket);
  const qmp = new Qmp(socket);
  // Looked at again: between the first look and the connection the pid may have changed hands.
  if (!isAlive(spec.process)) {
    qmp.close();
    throw gone(spec.process);
  }
  await qmp.execute("qmp_capabilities");
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

  constructor({ process, workDir }: AdoptSpec, monitor: Socket) {
    this.identity = process;
    this.ended = new Promise((resolve) => {
      monitor.once("close", () => resolve(this.#confirmEnd(workDir)));
    });
  }

  /** A VMM that lost its monitor and does not end is of no use to anybody. */
  async #confirmEnd(workDir: string): Promise<VmEnd> {
    if (!(await waitUntilGone(this.identity, lingerMs))) {
      process.kill(this.identity.pid, "SIGKILL");
      await waitUntilGone(this.identity, lingerMs);
    }
    return { stopped: this.#stopped, exitCode: null, signal: null, log: logTail(workDir) };
  }

  async stop(): Promise<VmEnd> {
    this.#stopped = true;
    if (isAlive(this.identity)) process.kill(this.identity.pid, "SIGKILL");
    return await withDeadline(this.ended, stopTimeoutMs, "ending the adopted VMM");
  }
}

function openMonitor({ process, workDir }: AdoptSpec): Promise<Socket> {
  const socket = connect(join(workDir, qmpSocketName));
  const opened = new Promise<Socket>((resolve, reject) => {
    socket.once("connect", () => resolve(socket));
    socket.once("error", (error) => {
      const message = `the VMM ${process.pid} does not take a monitor connection: ${error.message}`;
      reject(new ForkdError("engine_failed", message, { cause: error }));
    });
  });
  opened.catch(() => socket.destroy());
  return withDeadline(opened, connectTimeoutMs, "connecting to the VMM's monitor");
}

function gone({ pid }: ProcessIdentity): ForkdError {
  return new ForkdError("engine_failed", `the VMM with pid ${pid} is gone`);
}
