import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { Duplex } from "node:stream";
import { after, before, describe, test } from "node:test";
import { parseSandboxId, parseSnapshotTag } from "@forkd/api";
import { type DataPaths, resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { resolveEngineSettings } from "@forkd/host/config/engine-settings.ts";
import type { RestoredVm, RestoreSpec } from "@forkd/host/engine/engine.ts";
import { QemuEngine } from "@forkd/host/engine/qemu/engine.ts";
import { noLimits } from "@forkd/host/fork/asked-limits.ts";
import { openForkService } from "@forkd/host/fork/open-service.ts";
import type { ForkService } from "@forkd/host/fork/service.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";

/** The real guest gets its identity; whatever it says from then on does not arrive. */
function muteFromIdentity(channel: Duplex): Duplex {
  let isMute = false;
  const muted: Duplex = new Duplex({
    read: () => channel.resume(),
    write: (chunk: Buffer, _encoding, done) => {
      isMute ||= chunk.includes('"op":"identity"');
      channel.write(chunk, () => done());
    },
    destroy: (error, done) => {
      channel.destroy();
      done(error);
    },
  });
  channel.on("data", (chunk) => {
    if (!isMute) muted.push(chunk);
  });
  channel.on("error", (error) => muted.destroy(error));
  channel.on("close", () => muted.destroy());
  return muted;
}

class MutingEngine extends QemuEngine {
  override async restore(spec: RestoreSpec): Promise<RestoredVm> {
    const vm = await super.restore(spec);
    const openChannel = vm.openChannel.bind(vm);
    vm.openChannel = async () => muteFromIdentity(await openChannel());
    return vm;
  }
}

describe("a guest whose identity is never acknowledged", {
  skip: skipWithout("root", "qemu", "guest-agent"),
  timeout: 300_000,
}, () => {
  let data: DataDir;
  let service: ForkService;
  let paths: DataPaths;
  let tag: string;

  before(async () => {
    const baked = await ensureBaked();
    tag = baked.tag;
    data = await makeDataDir("mute", baked);
    paths = resolveDataPaths({ FORKD_DATA_DIR: data.path }, 0);
    const { kvmTrialMs } = resolveEngineSettings(process.env);
    service = await openForkService({
      paths,
      owner: "daemon",
      stateFile: null,
      log: silentLogger,
      engine: new MutingEngine({ cacheDir: paths.cacheDir, kvmTrialMs }),
      identityTimeoutMs: 3_000,
    });
  });
  after(async () => {
    await service?.close("kill");
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  test("nothing gets through to it, and it is killed with the reason", async () => {
    const request = { tag: parseSnapshotTag(tag), count: 1, limits: noLimits, minIsolation: null };
    const spawning = service.spawn(request);
    spawning.catch(() => undefined);
    const [info = assert.fail()] = await eventually(() => {
      const live = service.listSandboxes();
      assert.equal(live.length, 1);
      return live;
    });
    assert.equal(info.state, "starting");
    const id = parseSandboxId(info.id);
    const calls = [
      service.exec(id, { args: ["/bin/true"], timeout_secs: 30, env: {} }),
      service.eval(id, { code: "1", timeout_secs: 30 }),
      service.ping(id),
    ];
    const settled = Promise.allSettled(calls);
    await assert.rejects(spawning, {
      code: "identity_failed",
      message: /did not prove an identity of its own: .* took longer than 3000 ms/,
    });
    for (const result of await settled) {
      assert.equal(result.status, "rejected");
      assert.match(result.reason.code, /^(identity_failed|sandbox_ended)$/);
    }
    const [ended] = await service.listEndedSandboxes();
    assert.deepEqual([ended?.id, ended?.end?.reason], [id, "identity_timeout"]);
    assert.equal(ended?.identity, null);
    assert.deepEqual(service.listSandboxes(), []);
    assert.deepEqual(await readdir(paths.workDir), []);
    await assert.rejects(service.exec(id, { args: ["x"], timeout_secs: 1, env: {} }), {
      code: "sandbox_ended",
      message: /identity_timeout/,
    });
  });
});
