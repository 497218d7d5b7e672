import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { parseSnapshotTag } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { QemuEngine } from "@forkd/host/engine/qemu/engine.ts";
import { resolveKernel } from "@forkd/host/kernel/resolve.ts";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import { SnapshotStore } from "@forkd/host/store/snapshots.ts";
import { ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { type EngineSubject, engineConformance } from "./engine-suite.ts";

const skip = skipWithout("root", "qemu", "guest-agent");

if (skip !== false) {
  test("engine qemu", { skip }, () => undefined);
} else {
  const dir = await mkdtemp(join(tmpdir(), "forkd-conf-"));
  after(() => rm(dir, { recursive: true, force: true }));
  engineConformance("qemu", () => makeSubject(dir));
}

async function makeSubject(dir: string): Promise<EngineSubject> {
  const { dataDir, tag } = await ensureBaked();
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dataDir }, 0);
  const self = identifyProcess(process.pid) ?? assert.fail();
  const snapshot = await new SnapshotStore(paths, self).open(parseSnapshotTag(tag));
  return {
    engine: new QemuEngine(paths.cacheDir),
    kernel: await resolveKernel(paths),
    rootImage: snapshot.rootImage,
    dir,
  };
}
