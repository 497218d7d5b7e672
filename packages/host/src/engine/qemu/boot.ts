import { keepTail } from "../console.ts";
import type { BootedVm, BootSpec } from "../engine.ts";
import { startOwnVmm } from "../own-vmm.ts";
import { createRamFile } from "../ram-file.ts";
import { bootArgv } from "./argv.ts";
import { Qmp } from "./qmp.ts";
import { hostTscKhz } from "./tsc.ts";
import { QemuVm } from "./vm.ts";

/** Starts a parent. It runs when this resolves; its agent answers when it has booted. */
export async function bootQemu(spec: BootSpec): Promise<BootedVm> {
  await createRamFile(spec.memoryFile, spec.machine.memoryMib);
  const tscKhz = spec.machine.accel === "tcg" ? await hostTscKhz() : null;
  const started = performance.now();
  const process = await startOwnVmm({
    argv: bootArgv(spec, tscKhz),
    workDir: spec.workDir,
    dieWithParent: true,
    cgroups: [],
    sockets: 2,
    files: [],
    preload: null,
  });
  const consoleTail = keepTail(process.socket(1));
  const qmp = new Qmp(process.socket(0));
  await process.orDeath(qmp.execute("qmp_capabilities"), "boot");
  process.unref();
  const elapsed = performance.now() - started;
  const timings = { processMs: elapsed, restoredMs: elapsed };
  return new QemuVm({ process, qmp, workDir: spec.workDir, timings, consoleTail });
}
