import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parseSandboxId, parseSnapshotTag, type SandboxId } from "@forkd/api";
import { jailDefaults } from "@forkd/host/engine/firecracker/jail.ts";
import { noLimits } from "@forkd/host/fork/asked-limits.ts";
import type { ForkService } from "@forkd/host/fork/service.ts";
import type { JournalStep } from "@forkd/host/fork/steps.ts";
import { claimWorkDir } from "@forkd/host/fork/work-dir.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { sha256File } from "@forkd/host/lib/hash.ts";
import { bootId } from "@forkd/host/linux/proc.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { childPids } from "../../helpers/child-pids.ts";
import { FakeFirecracker } from "../../helpers/fake-firecracker.ts";
import {
  branchAsked,
  firecrackerBake,
  openFirecrackerService,
} from "../../helpers/firecracker-service.ts";
import { slowProgram } from "../../helpers/own-program.ts";
import { packOrder, unpackOrder } from "../../helpers/packs.ts";

const skip = skipWithout("root", "compiler", "guest-agent");
const tag = parseSnapshotTag("warm");
const scratchMib = 96;
const crashTimeoutMs = 60_000;

describe("a service with scratch disks of Firecracker", { skip }, () => {
  let dir: string;
  let fake: FakeFirecracker;
  let service: ForkService;
  const taken: JournalStep[] = [];
  const dataDir = (): string => join(dir, "data");
  const open = (at = dataDir()): Promise<ForkService> =>
    openFirecrackerService({
      fake,
      dataDir: at,
      jail: jailDefaults,
      onStep: (step) => void taken.push(step),
    });
  const diskOf = (name: string): string => join(dataDir(), "snapshots", name, "scratch.0");

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "forkd-fcy-"));
    await mkdir(dataDir(), { mode: 0o700 });
    fake = await FakeFirecracker.make(join(dir, "fake"));
    service = await open();
    const request = await firecrackerBake(service, fake, tag);
    await service.bake({ ...request, scratchMib }, () => undefined);
  });
  after(async () => {
    await service?.close("kill");
    await rm(dir, { recursive: true, force: true });
  });

  const spawn = async (from: string, at = service): Promise<SandboxId> => {
    const spec = { tag: parseSnapshotTag(from), count: 1, limits: noLimits, minIsolation: null };
    const [child] = await at.spawn({ ...spec, scratchMib });
    return parseSandboxId(child?.info.id ?? assert.fail());
  };
  /** Above what ext4 has of its own, which is at the begin of the disk and of its groups. */
  const at = 40 * 1024 * 1024;
  const disk = async (id: SandboxId, order: string, of = service): Promise<string | null> => {
    const { result, error } = await of.eval(id, { code: `#disk ${order}`, timeout_secs: 20 });
    assert.equal(error, null);
    return result;
  };
  const write = (id: SandboxId, word: string) => disk(id, `write ${at} ${word}`);
  const read = (id: SandboxId, of = service) => disk(id, `read ${at} 5`, of);
  const readIn = async (from: string): Promise<string | null> => {
    const id = await spawn(from);
    const word = await read(id);
    await service.kill(id);
    return word;
  };

  test("a bake publishes one raw layer, and nothing of it is left elsewhere", async () => {
    const manifest: unknown = JSON.parse(
      await readFile(join(dataDir(), "snapshots", tag, "snapshot.json"), "utf8"),
    );
    const size = scratchMib * 1024 * 1024;
    const scratch = { size_mib: scratchMib, layers: [{ format: "raw", size }] };
    assert.deepEqual((manifest as { scratch: unknown }).scratch, scratch);
    const { uid, mode } = await stat(diskOf(tag));
    assert.deepEqual([uid, mode & 0o222], [0, 0], "nobody may write it");
    await run(["e2fsck", "-f", "-n", diskOf(tag)], { timeoutMs: crashTimeoutMs });
    assert.deepEqual(await readdir(join(dataDir(), "work")), []);
    const [listed] = await service.listSnapshots();
    assert.equal(listed?.status, "ready");
    assert.equal(listed.scratch_mib, scratchMib);
  });

  test("branches hold the disk of their instant, also those of branches, and compacted", async () => {
    const digest = await sha256File(diskOf(tag));
    const [parent, other] = [await spawn(tag), await spawn(tag)];
    await write(parent, "first");
    await service.branch(parent, branchAsked("first", "diff"));
    await write(parent, "later");
    await service.branch(parent, branchAsked("later", "full"));
    await write(parent, "after");
    assert.equal(await read(other), ".....");
    assert.equal(await readIn("first"), "first");
    assert.equal(await readIn("later"), "later");
    const child = await spawn("first");
    await write(child, "child");
    await service.branch(child, branchAsked("child", "diff"));
    assert.equal(await readIn("child"), "child");
    await service.compactSnapshot(parseSnapshotTag("child"), parseSnapshotTag("compact"));
    assert.equal(await readIn("compact"), "child");
    assert.equal(await read(parent), "after");
    assert.equal(await sha256File(diskOf(tag)), digest);
    for (const id of [parent, other, child]) await service.kill(id);
    assert.deepEqual(await readdir(join(dataDir(), "work")), []);
  });

  test("a pack carries the disks of a chain to another host", async () => {
    const file = join(dir, "child.tar");
    await service.pack(packOrder("child", { to: { file, replace: false } }));
    const elsewhere = join(dir, "elsewhere");
    await mkdir(elsewhere, { mode: 0o700 });
    const other = await open(elsewhere);
    try {
      // A host may have no KVM, which the stand-in does not need.
      const report = await other.unpack(unpackOrder({ from: { file }, force: true }));
      assert.equal(report.snapshots.length, 3);
      assert.equal(await read(await spawn("child", other), other), "child");
      assert.equal(await read(await spawn(tag, other), other), ".....");
    } finally {
      await other.close("kill");
    }
  });

  test("a sandbox that is killed while its disk is copied is gone at once, without a VMM", async () => {
    const children = childPids();
    const steps = taken.length;
    using slow = await slowProgram(dir, "cp");
    const refused = assert.rejects(spawn(tag), { code: "sandbox_ended" });
    await slow.begun;
    const [begun] = service.listSandboxes();
    await service.kill(parseSandboxId(begun?.id ?? assert.fail()));
    await refused;
    assert.deepEqual(childPids(), children);
    const since = taken.slice(steps);
    assert.equal(since.includes("vmm_started"), false);
    assert.ok(since.includes("resources_released"), `${since}`);
    assert.deepEqual(await readdir(join(dataDir(), "work")), []);
  });

  test("a daemon that dies between the copy and its name leaves a sandbox that goes on", async () => {
    const id = await spawn(tag);
    await write(id, "early");
    await service.close("detach");
    // As if the daemon that owned it had been another process, which is gone.
    const gone = { pid: process.pid, startTicks: 1, bootId: bootId() };
    await claimWorkDir(join(dataDir(), "work", id), gone);
    const names = await readdir(join(dataDir(), "snapshots"));
    const program = join(import.meta.dirname, "../../helpers/firecracker-crash.ts");
    const argv = [join(repoRoot, "scripts/node"), program, fake.dir, dataDir(), id, "killed"];
    await assert.rejects(run(argv, { timeoutMs: crashTimeoutMs }), /SIGKILL|137/);
    service = await open();
    const ids = service.listSandboxes().map((sandbox) => sandbox.id);
    assert.deepEqual(ids, [id]);
    assert.deepEqual((await readdir(join(dataDir(), "snapshots"))).sort(), names.sort());
    assert.equal(await read(id), "early");
    await service.branch(id, branchAsked("killed", "diff"));
    assert.equal(await readIn("killed"), "early");
    await service.kill(id);
    assert.deepEqual(await readdir(join(dataDir(), "work")), []);
  });
});
