import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parseSandboxId, parseSnapshotTag, type SnapshotTag, toForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { engineDefaults } from "@forkd/host/config/engine-settings.ts";
import { jailDefaults } from "@forkd/host/engine/firecracker/jail.ts";
import { noLimits } from "@forkd/host/fork/asked-limits.ts";
import { openForkService } from "@forkd/host/fork/open-service.ts";
import type { BakeRequest, ForkService } from "@forkd/host/fork/service.ts";
import { claimWorkDir } from "@forkd/host/fork/work-dir.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { bootId } from "@forkd/host/linux/proc.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { FakeFirecracker } from "../../helpers/fake-firecracker.ts";
import {
  branchAsked,
  firecrackerBake,
  openFirecrackerService,
} from "../../helpers/firecracker-service.ts";

const skip = skipWithout("root", "compiler", "guest-agent");
const tag = parseSnapshotTag("warm");

describe("a service with Firecracker", { skip }, () => {
  let dir: string;
  let fake: FakeFirecracker;
  let request: BakeRequest;
  let service: ForkService;

  const open = (owner: "daemon" | "cli" = "daemon"): Promise<ForkService> =>
    openFirecrackerService({ fake, dataDir: join(dir, "data"), owner });

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "forkd-fcx-"));
    await mkdir(join(dir, "data"), { mode: 0o700 });
    fake = await FakeFirecracker.make(join(dir, "fake"));
    service = await open();
    request = await firecrackerBake(service, fake, tag);
  });
  after(async () => {
    await service?.close("kill");
    await rm(dir, { recursive: true, force: true });
  });

  const spawn = async (from = tag): Promise<ReturnType<typeof parseSandboxId>> => {
    const spec = { tag: from, count: 1, limits: noLimits, minIsolation: "vm" as const };
    const [child] = await service.spawn(spec);
    return parseSandboxId(child?.info.id ?? assert.fail());
  };
  const value = async (id: ReturnType<typeof parseSandboxId>, code: string) =>
    (await service.eval(id, { code, timeout_secs: 20 })).result;

  test("bakes a parent and says what froze it", async () => {
    const info = await service.bake(request, () => undefined);
    assert.equal(info.engine, "firecracker");
    assert.equal(info.isolation, "vm");
    assert.deepEqual(await readdir(join(dir, "data/work")), []);
  });

  test("spawns children that are not each other, and kills them without a trace", async () => {
    const [a, b] = [await spawn(), await spawn()];
    await value(a, "mine = 'a'");
    await value(b, "mine = 'b'");
    assert.equal(await value(a, "mine"), "'a'");
    assert.equal((await service.getSandbox(a)).engine, "firecracker");
    assert.notEqual(
      await value(a, "__import__('socket').gethostname()"),
      await value(b, "__import__('socket').gethostname()"),
    );
    await Promise.all([service.kill(a), service.kill(b)]);
    assert.deepEqual(await readdir(join(dir, "data/work")), []);
  });

  test("a branch, and a branch of its child, hold what their sandboxes knew", async () => {
    const parent = await spawn();
    await value(parent, "one = 1");
    const first = parseSnapshotTag("first");
    await service.branch(parent, branchAsked(first, "diff"));
    await value(parent, "two = 2");
    const second = parseSnapshotTag("second");
    await service.branch(parent, branchAsked(second, "diff"));
    const child = await spawn(second);
    assert.equal(await value(child, "(one, two)"), "(1, 2)");
    await value(child, "three = one + two");
    const third = parseSnapshotTag("third");
    await service.branch(child, branchAsked(third, "full"));
    const grandchild = await spawn(third);
    assert.equal(await value(grandchild, "(one, two, three)"), "(1, 2, 3)");
    const early = await spawn(first);
    const { error } = await service.eval(early, { code: "two", timeout_secs: 20 });
    assert.match(error ?? "", /two/);
    for (const id of [parent, child, grandchild, early]) await service.kill(id);
  });

  test("live mode is refused, and the sandbox goes on", async () => {
    const id = await spawn();
    const branch = branchAsked(parseSnapshotTag("live"), "live");
    await assert.rejects(service.branch(id, branch), { code: "live_unsupported" });
    assert.equal(await value(id, "6 * 7"), "42");
    await service.kill(id);
  });

  test("the next daemon adopts what the last one left, and can branch it", async () => {
    const id = await spawn();
    await value(id, "kept = 5");
    await service.branch(id, branchAsked(parseSnapshotTag("before"), "diff"));
    await service.close("detach");
    // As if the daemon that owned it had been another process, which is gone.
    const gone = { pid: process.pid, startTicks: 1, bootId: bootId() };
    await claimWorkDir(join(dir, "data/work", id), gone);
    service = await open();
    assert.deepEqual(
      service.listSandboxes().map((sandbox) => sandbox.id),
      [id],
    );
    assert.equal(await value(id, "kept * 2"), "10");
    await value(id, "more = 6");
    const later = parseSnapshotTag("later");
    await service.branch(id, branchAsked(later, "diff"));
    const child = await spawn(later);
    assert.equal(await value(child, "(kept, more)"), "(5, 6)");
    await service.kill(child);
    await service.kill(id);
    assert.deepEqual(await readdir(join(dir, "data/work")), []);
  });

  test("a VMM that dies is noticed, and its directory goes", async () => {
    const id = await spawn();
    process.kill((await service.getSandbox(id)).pid ?? assert.fail(), "SIGKILL");
    await assert.rejects(service.eval(id, { code: "1", timeout_secs: 20 }));
    await service.kill(id).catch(() => undefined);
    assert.deepEqual(await readdir(join(dir, "data/work")), []);
  });

  test("jailed, it does the same, and nothing of a jail is left", async () => {
    const paths = resolveDataPaths({ FORKD_DATA_DIR: join(dir, "jailed") }, 0);
    await mkdir(paths.dataDir, { mode: 0o700 });
    const common = { fake, dataDir: paths.dataDir, jail: jailDefaults };
    const jailed = await openFirecrackerService({ ...common, owner: "cli" });
    const image = await jailed.importImage(join(dir, "fake/root.img"));
    await jailed.bake({ ...request, image }, () => undefined);
    const spec = { count: 1, limits: noLimits, minIsolation: null };
    const [child] = await jailed.spawn({ ...spec, tag });
    const id = parseSandboxId(child?.info.id ?? assert.fail());
    const branched = parseSnapshotTag("branched");
    await jailed.branch(id, branchAsked(branched, "diff"));
    const [grandchild] = await jailed.spawn({ ...spec, tag: branched });
    assert.equal(grandchild?.info.engine, "firecracker");
    await jailed.close("kill");
    assert.deepEqual(await readdir(paths.workDir), []);
  });

  test("a snapshot of another version is refused until that one is back, or it is baked anew", async (t) => {
    t.after(() => fake.setVersion("1.16.1"));
    const other = parseSnapshotTag("other");
    const fork = async (from: SnapshotTag): Promise<string | undefined> => {
      const cli = await open("cli");
      const spec = { tag: from, count: 1, limits: noLimits, minIsolation: null };
      try {
        return (await cli.spawn(spec))[0]?.info.engine;
      } finally {
        await cli.close("kill");
      }
    };
    await fake.setVersion("1.17.0");
    await assert.rejects(fork(tag), (error: unknown) => {
      const { code, message, hint } = toForkdError(error);
      assert.equal(code, "snapshot_incompatible");
      assert.match(message, /of firecracker 1\.16\.1, this host has 1\.17\.0/);
      assert.match(hint, /bake the snapshot again/);
      return true;
    });
    const cli = await open("cli");
    await cli.bake({ ...request, tag: other }, () => undefined);
    await cli.close("kill");
    assert.equal(await fork(other), "firecracker");
    await fake.setVersion("1.16.1");
    assert.equal(await fork(tag), "firecracker");
    await assert.rejects(fork(other), { code: "snapshot_incompatible" });
  });

  test("without the engine of a snapshot its children cannot be had, and it says so", async () => {
    const paths = resolveDataPaths({ FORKD_DATA_DIR: join(dir, "data") }, 0);
    const engines = { ...engineDefaults, firecracker: join(dir, "nowhere") };
    const cli = await openForkService({
      paths,
      owner: "cli",
      log: silentLogger,
      stateFile: null,
      engines,
    });
    const spec = { tag, count: 1, limits: noLimits, minIsolation: null };
    await assert.rejects(cli.spawn(spec), { code: "engine_unavailable" });
    await cli.close("kill");
  });
});
