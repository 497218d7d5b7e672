import { ForkdError } from "@forkd/api";
import { orAborted } from "../../lib/deadline.ts";
import type { VmmBroker } from "../broker.ts";
import type { RestoredVm, RestoreSpec } from "../engine.ts";
import { ramEnv, restoreArgv, vmstateFd } from "./argv.ts";
import { Qmp } from "./qmp.ts";
import { createTopLayer, layersOf } from "./scratch.ts";
import { QemuVm } from "./vm.ts";

/** Loading takes tens of milliseconds; a hundred children on a small host queue for the CPU. */
const loadTimeoutMs = 60_000;

/** Starts a VMM that maps the memory image privately, and loads the device state into it. */
export async function restoreQemu(spec: RestoreSpec, broker: VmmBroker): Promise<RestoredVm> {
  const started = performance.now();
  await createTopLayer(layersOf(spec.scratch));
  spec.signal?.throwIfAborted();
  const process = await broker.start({
    argv: restoreArgv(spec),
    workDir: spec.workDir,
    dieWithParent: spec.dieWithParent,
    cgroups: spec.cgroups,
    netns: spec.network?.netns ?? null,
    sockets: 1,
    files: [spec.vmstateFile],
    preload: { library: "forkd-ram.so", fdVariable: "FORKD_RAM_SELF_FD", env: ramEnv(spec) },
  });
  const processMs = performance.now() - started;
  const qmp = new Qmp(process.socket(0));
  await process.orDeath(orAborted(load(qmp), spec.signal), "restore");
  process.unref();
  const timings = { processMs, restoredMs: performance.now() - started };
  return new QemuVm({ process, qmp, workDir: spec.workDir, timings, consoleTail: () => "" });
}

/**
 * The commands go out together, QEMU runs them in order. Without the `events` capability there is
 * no MIGRATION event to wait for.
 */
async function load(qmp: Qmp): Promise<void> {
  const settled = qmp.waitFor(
    ({ event, data }) =>
      event === "MIGRATION" && (data["status"] === "completed" || data["status"] === "failed"),
    loadTimeoutMs,
    "loading the VM's state",
  );
  const sent = [
    qmp.execute("qmp_capabilities"),
    qmp.execute("migrate-set-capabilities", {
      capabilities: [{ capability: "events", state: true }],
    }),
    // Nor does QEMU announce the card's frozen address.
    qmp.execute("migrate-set-parameters", { "announce-rounds": 0 }),
    qmp.execute("migrate-incoming", { uri: `fd:${vmstateFd}` }),
  ];
  settled.catch(() => undefined);
  await Promise.all(sent);
  const event = await settled;
  if (event.data["status"] === "failed") {
    throw new ForkdError("engine_failed", "QEMU could not load the VM's state", {
      hint: "the snapshot may be of another QEMU version; bake it again",
    });
  }
}
