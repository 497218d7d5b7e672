import { join } from "node:path";
import { AdoptedProcess, requireAlive } from "../adopted-process.ts";
import type { AdoptSpec, Vm } from "../engine.ts";
import { qmpSocketName } from "./argv.ts";
import { openMonitor } from "./monitor.ts";
import { Qmp } from "./qmp.ts";
import { QemuVm } from "./vm.ts";

/** Connects to the monitor that every VM of ours listens on for a later owner. */
export async function adoptQemu(spec: AdoptSpec): Promise<Vm> {
  requireAlive(spec.process);
  const socket = await openMonitor(join(spec.workDir, qmpSocketName));
  const process = new AdoptedProcess(spec, socket);
  const qmp = new Qmp(socket);
  try {
    // Looked at again: between the first look and the connection the pid may have changed hands.
    requireAlive(spec.process);
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
