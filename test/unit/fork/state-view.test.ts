import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { SandboxInfo, SnapshotInfo } from "@forkd/api";
import { noLimits } from "@forkd/host/fork/asked-limits.ts";
import { StateView } from "@forkd/host/fork/state-view.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { FakeService } from "../../helpers/fake-service.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

async function snapshots(): Promise<SnapshotInfo[]> {
  return await new FakeService().listSnapshots();
}

test("the file shows the last of many changes, sorted, in few writes", async () => {
  await using dir = await makeTmpDir("state");
  const path = join(dir.path, "deep", "state.json");
  const ids: string[] = [];
  let asked = 0;
  const service = new FakeService();
  const [sample] = await service.spawn({
    tag: "base" as never,
    count: 1,
    limits: noLimits,
    minIsolation: null,
  });
  const view = new StateView(
    path,
    {
      listSnapshots: () => {
        asked += 1;
        return snapshots();
      },
      listSandboxes: () =>
        ids.map((id): SandboxInfo => ({ ...(sample ?? assert.fail()).info, id })),
    },
    silentLogger,
  );
  for (const id of ["sb-3", "sb-1", "sb-2"]) {
    ids.push(id);
    view.changed();
  }
  await view.settled();
  const state = JSON.parse(await readFile(path, "utf8"));
  assert.deepEqual(Object.keys(state), ["snapshots", "sandboxes", "workspaces"]);
  assert.deepEqual(Object.keys(state.sandboxes), ["sb-1", "sb-2", "sb-3"]);
  assert.equal(state.snapshots.base.status, "ready");
  assert.ok(asked <= 2, `${asked} writes for three changes`);
  assert.deepEqual(await readdir(join(dir.path, "deep")), ["state.json"]);
});

test("a file that cannot be written is logged and stops nothing", async () => {
  const warnings: string[] = [];
  const log = { ...silentLogger, warn: (message: string) => void warnings.push(message) };
  const source = { listSnapshots: snapshots, listSandboxes: () => [] };
  await using dir = await makeTmpDir("state");
  await writeFile(join(dir.path, "file"), "");
  const view = new StateView(join(dir.path, "file", "state.json"), source, log);
  view.changed();
  await view.settled();
  assert.deepEqual(warnings, ["the state file could not be written"]);
});
