import assert from "node:assert/strict";
import { parseSnapshotTag } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { resolveEngineSettings } from "@forkd/host/config/engine-settings.ts";
import { QemuEngine } from "@forkd/host/engine/qemu/engine.ts";
import { resolveKernel } from "@forkd/host/kernel/resolve.ts";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import { SnapshotStore } from "@forkd/host/store/snapshots.ts";
import { ensureBaked } from "../helpers/baked.ts";
import type { FrozenGuest } from "./captured-guest.ts";
import type { EngineSubject } from "./engine-suite.ts";

/** The QEMU engine with the shared warm snapshot; `dir` is an empty directory with a short path. */
export async function qemuSubject(
  dir: string,
): Promise<EngineSubject & { readonly frozen: FrozenGuest }> {
  const { dataDir, tag } = await ensureBaked();
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dataDir }, 0);
  const { kvmTrialMs } = resolveEngineSettings(process.env);
  const self = identifyProcess(process.pid) ?? assert.fail();
  const snapshot = await new SnapshotStore(paths, self).open(parseSnapshotTag(tag));
  const { machine, agent } = snapshot.manifest;
  return {
    engine: new QemuEngine({ cacheDir: paths.cacheDir, kvmTrialMs }),
    kernel: await resolveKernel(paths),
    rootImage: snapshot.rootImage,
    dir,
    frozen: {
      machine: {
        accel: machine.accel,
        cpu: machine.cpu,
        vcpus: machine.vcpus,
        memoryMib: machine.memory_mib,
        nic: machine.nic,
      },
      memory: snapshot.memory,
      vmstateFile: snapshot.vmstateFile,
      token: Buffer.from(agent.attach_token, "hex"),
    },
  };
}
