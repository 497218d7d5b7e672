import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parseSnapshotTag } from "@forkd/api";
import { type DataPaths, resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { resolveEngineSettings } from "@forkd/host/config/engine-settings.ts";
import type { RestoredVm, RestoreSpec } from "@forkd/host/engine/engine.ts";
import { qmpSocketName } from "@forkd/host/engine/qemu/argv.ts";
import { QemuEngine } from "@forkd/host/engine/qemu/engine.ts";
import { openMonitor } from "@forkd/host/engine/qemu/monitor.ts";
import { Qmp } from "@forkd/host/engine/qemu/qmp.ts";
import { askedLimits } from "@forkd/host/fork/asked-limits.ts";
import { DiskGuard } from "@forkd/host/fork/disk-guard.ts";
import { onlyEngine } from "@forkd/host/fork/engines.ts";
import { LimitKeeper } from "@forkd/host/fork/limits.ts";
import { NetKeeper } from "@forkd/host/fork/network.ts";
import { Sandboxes } from "@forkd/host/fork/sandboxes.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import { SnapshotStore } from "@forkd/host/store/snapshots.ts";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { makeTmpDir, type TmpDir } from "../helpers/tmp.ts";

/** A real engine whose VMMs open one more file than they were told to. */
class DoctoredEngine extends QemuEngine {
  /** Null for an honest one. */
  extra: string | null = null;
  /** The work directories of the VMs that it made. */
  readonly made: string[] = [];

  override async restore(spec: RestoreSpec): Promise<RestoredVm> {
    const vm = await super.restore(spec);
    this.made.push(spec.workDir);
    if (this.extra !== null) await openForWriting(spec.workDir, this.extra);
    return vm;
  }
}

async function openForWriting(workDir: string, filename: string): Promise<void> {
  const qmp = new Qmp(await openMonitor(join(workDir, qmpSocketName)));
  await qmp.execute("qmp_capabilities");
  const node = { driver: "file", "node-name": "extra", filename, locking: "off" };
  await qmp.execute("blockdev-add", node);
  qmp.close();
}

const skip = skipWithout("root", "qemu", "guest-agent");

describe("a VMM that has more open than it was told to", { skip }, () => {
  let baked: Baked;
  let tmp: TmpDir;
  let paths: DataPaths;
  let engine: DoctoredEngine;
  let store: SnapshotStore;
  let sandboxes: Sandboxes;

  before(async () => {
    tmp = await makeTmpDir("sharing");
    baked = await ensureBaked();
    paths = resolveDataPaths({ FORKD_DATA_DIR: baked.dataDir }, 0);
    const { kvmTrialMs } = resolveEngineSettings(process.env);
    engine = new DoctoredEngine({ cacheDir: paths.cacheDir, kvmTrialMs });
    const owner = identifyProcess(process.pid) ?? assert.fail();
    store = new SnapshotStore(paths, owner);
    const deps = {
      paths,
      engines: onlyEngine(engine),
      store,
      limits: new LimitKeeper(paths),
      network: new NetKeeper(paths, silentLogger),
      disks: new DiskGuard(),
      log: silentLogger,
      sandboxesOutlive: false,
      identityTimeoutMs: 60_000,
      owner,
      history: null,
      onStep: () => undefined,
    };
    sandboxes = new Sandboxes({ deps, changed: () => undefined });
  });
  after(async () => {
    await sandboxes?.killAll();
    await tmp?.[Symbol.asyncDispose]();
  });

  const spawn = () =>
    sandboxes.spawn({
      tag: parseSnapshotTag(baked.tag),
      count: 1,
      limits: askedLimits({}),
      minIsolation: null,
    });

  test("runs when nobody else has to do with the file", async () => {
    const disk = join(tmp.path, "disk");
    writeFileSync(disk, "a disk");
    engine.extra = disk;
    assert.equal((await spawn()).length, 1);
  });

  test("is ended before it runs when another VM writes the file", async () => {
    const [first] = sandboxes.list();
    await assert.rejects(spawn(), (error: unknown) => {
      assert.ok(error instanceof Error && "code" in error);
      assert.equal(error.code, "disk_shared");
      assert.ok(error.message.includes(join(tmp.path, "disk")), error.message);
      assert.ok(error.message.includes(first?.id ?? "no sandbox"), error.message);
      return true;
    });
    requireOnlyFirst();
  });

  for (const what of ["rootImage", "memory"] as const) {
    test(`is ended before it runs when the file is the ${what} that all children read`, async () => {
      const snapshot = await store.open(parseSnapshotTag(baked.tag));
      engine.extra = what === "memory" ? snapshot.memory.base : snapshot.rootImage;
      await assert.rejects(spawn(), { code: "disk_shared", message: /which others read/ });
      requireOnlyFirst();
    });
  }

  test("an honest one runs beside it, and one that has ended is in nobody's way", async () => {
    engine.extra = null;
    await spawn();
    await sandboxes.killAll();
    assert.deepEqual(engine.made.filter(existsSync), []);
  });

  /** The directory of a VM goes after its process. */
  function requireOnlyFirst(): void {
    const [kept, ...gone] = engine.made;
    assert.deepEqual(gone.filter(existsSync), []);
    assert.ok(kept !== undefined && existsSync(kept));
    assert.equal(sandboxes.list().length, 1);
  }
});
