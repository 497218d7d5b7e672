import { join } from "node:path";
import { AdoptedProcess, requireAlive } from "../adopted-process.ts";
import type { AdoptSpec, Vm } from "../engine.ts";
import type { VmProcess } from "../process.ts";
import { FirecrackerApi } from "./api.ts";
import { vmFiles } from "./files.ts";
import type { FirecrackerHost } from "./host.ts";
import { VmJournal } from "./journal.ts";
import { connectTo } from "./sockets.ts";
import { FirecrackerVm } from "./vm.ts";

/** Takes over a VM by its note and its API, which listens for whoever comes. */
export async function adoptFirecracker(host: FirecrackerHost, spec: AdoptSpec): Promise<Vm> {
  requireAlive(spec.process);
  const journal = await VmJournal.open(spec.workDir);
  const socketPath = join(journal.dir, vmFiles.api);
  const tether = await connectTo(socketPath, `the VMM ${spec.process.pid}`);
  // Nothing comes this way but its end.
  tether.on("error", () => undefined);
  tether.resume();
  const process = new AdoptedProcess(spec, tether);
  const api = new FirecrackerApi(socketPath, host.timeouts.requestMs);
  try {
    // Looked at again: between the first look and the connection the pid may have changed hands.
    requireAlive(spec.process);
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
      // Whether a reset was sent is not known; another one does no harm.
      fresh: false,
    });
  } catch (error) {
    process.abandon();
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
