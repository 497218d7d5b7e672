import type { Socket } from "node:net";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { withDeadline } from "../../lib/deadline.ts";
import { isAlive, type ProcessIdentity, waitUntilGone } from "../../linux/proc.ts";
import type { AdoptSpec, Vm, VmEnd } from "../engine.ts";
import { logTail, type VmProcess } from "../process.ts";
import { FirecrackerApi } from "./api.ts";
import { vmFiles } from "./files.ts";
import type { FirecrackerHost } from "./host.ts";
import { VmJournal } from "./journal.ts";
import { connectTo } from "./sockets.ts";
import { FirecrackerVm } from "./vm.ts";

const stopTimeoutMs = 10_000;
/** From the close of the API to the end of the process. */
const lingerMs = 3_000;

/** Takes over a VM by its note and its API, which listens for whoever comes. */
export async function adoptFirecracker(host: FirecrackerHost, spec: AdoptSpec): Promise<Vm> {
  if (!isAlive(spec.process)) throw gone(spec.process);
  const journal = await VmJournal.open(spec.workDir);
  const socketPath = join(journal.dir, vmFiles.api);
  const tether = await connectTo(socketPath, `the VMM ${spec.process.pid}`);
  const process = new AdoptedProcess(spec, tether);
  const api = new FirecrackerApi(socketPath, host.timeouts.requestMs);
  try {
    // Looked at again: between the first look and the connection the pid may have changed hands.
    if (!isAlive(spec.process)) throw gone(spec.process);
    const { state } = await api.call("describe", null);
    await journal.apply("adopted");
    keepUser(host, journal, process);
    return new FirecrackerVm({
      host,
      process,
      api,
      journal,
      timings: { processMs: 0, restoredMs: 0 },
      consoleTail: () => "",
      booted: null,
      running: state === "Running",
    });
  } catch (error) {
    tether.destroy();
    api.close();
    throw error;
  }
}

function keepUser({ jail }: FirecrackerHost, { note }: VmJournal, { ended }: VmProcess): void {
  const { user } = note;
  if (jail === null || user === null) return;
  jail.users.keep(user);
  void ended.then(() => jail.users.release(user));
}

/**
 * A VMM that another process started. The kernel closes a connection to its API when it ends: that
 * is the event, and all that this connection is for.
 */
class AdoptedProcess implements VmProcess {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  #stopped = false;

  constructor({ process, workDir }: AdoptSpec, tether: Socket) {
    this.identity = process;
    tether.on("error", () => undefined);
    tether.resume();
    this.ended = new Promise((resolve) => {
      tether.once("close", () => resolve(this.#confirmEnd(workDir)));
    });
  }

  /** A VMM that drops its owner and does not end is of no use to anybody. */
  async #confirmEnd(workDir: string): Promise<VmEnd> {
    if (!(await waitUntilGone(this.identity, lingerMs))) {
      if (isAlive(this.identity)) process.kill(this.identity.pid, "SIGKILL");
      await waitUntilGone(this.identity, lingerMs);
    }
    const log = logTail(workDir);
    return { stopped: this.#stopped, exitCode: null, signal: null, guestOff: null, log };
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
