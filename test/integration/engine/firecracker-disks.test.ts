import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, open, readdir, rename, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import type { ChildScratch, DiskCapture, RestoredVm } from "@forkd/host/engine/engine.ts";
import { type JailPolicy, jailDefaults } from "@forkd/host/engine/firecracker/jail.ts";
import { VmJournal } from "@forkd/host/engine/firecracker/journal.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { sha256File } from "@forkd/host/lib/hash.ts";
import { type FrozenGuest, Guest } from "../../conformance/captured-guest.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { childPids } from "../../helpers/child-pids.ts";
import { type FirecrackerWorld, makeFirecrackerWorld } from "../../helpers/firecracker-guest.ts";
import { statusOf } from "../../helpers/process-status.ts";

const skip = skipWithout("root", "compiler", "guest-agent");
/** More than the RAM: the limit of file sizes must allow it. */
const scratchMib = 96;
const scratchBytes = scratchMib * 1024 * 1024;
const lastBytes = scratchBytes - 8;

const ways: Readonly<Record<string, JailPolicy | null>> = { unjailed: null, jailed: jailDefaults };
for (const [how, jail] of Object.entries(ways)) {
  describe(`scratch disks of Firecracker, ${how}`, { skip }, () => disks(jail));
}

function disks(jail: JailPolicy | null): void {
  let dir: string;
  let world: FirecrackerWorld;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "forkd-fcd-"));
    world = await makeFirecrackerWorld({
      dir,
      scratchMib,
      engineOf: (fake) => fake.engine({ jail }),
    });
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  const frozenDisk = (): string => world.frozen.scratch ?? assert.fail();
  const diskOf = async ({ workDir }: Guest): Promise<string> =>
    join((await VmJournal.open(workDir)).dir, "scratch.img");
  const write = (guest: Guest, at: number, text: string) =>
    guest.value(`#disk write ${at} ${text}`);
  const read = (guest: Guest, at = 0, bytes = 5) => guest.value(`#disk read ${at} ${bytes}`);
  const readIn = async (frozen: FrozenGuest, at = 0): Promise<string | null> => {
    const guest = await Guest.open(world, frozen);
    const text = await read(guest, at);
    await guest.vm.stop();
    return text;
  };
  const restoreIn = (
    workDir: string,
    { machine, memory, vmstateFile, scratch: disk }: FrozenGuest,
    scratch: ChildScratch = { kind: "file", frozen: disk ?? assert.fail() },
  ): Promise<RestoredVm> => {
    const rest = { dieWithParent: true, cgroups: [], network: null };
    const { rootImage } = world;
    return world.engine.restore({
      ...{ workDir, machine, rootImage, memory, vmstateFile, scratch },
      ...rest,
    });
  };
  const assertRunsAndCaptures = async (guest: Guest, text: string): Promise<void> => {
    await write(guest, 0, text);
    assert.equal(await readIn((await guest.capture()).frozen), text);
    await guest.vm.stop();
  };

  test("a parent's disk is back where it was, and nobody's but ours", async () => {
    const { uid, mode, size } = await stat(frozenDisk());
    assert.deepEqual([uid, mode & 0o777, size], [0, 0o600, scratchBytes]);
    assert.equal(existsSync(join(dir, "p/scratch.img")), false);
    const drives = (await world.fake.requests()).filter(({ path }) => path.startsWith("/drives/"));
    const names = jail === null ? ["/drives/root", "/drives/scratch"] : [];
    assert.deepEqual(drives.map(({ path }) => path).slice(0, 2), names);
  });

  test("what a child writes no other sees, and the frozen disk never changes", async () => {
    const digest = await sha256File(frozenDisk());
    const [a, b] = [await Guest.open(world, world.frozen), await Guest.open(world, world.frozen)];
    await write(a, 0, "aaaaa");
    await write(b, lastBytes, "bbbbb");
    assert.equal(await read(a), "aaaaa");
    assert.equal(await read(a, lastBytes), ".....");
    assert.equal(await read(b), "begin");
    assert.equal(await read(b, lastBytes), "bbbbb");
    await Promise.all([a.vm.stop(), b.vm.stop()]);
    assert.equal(await readIn(world.frozen), "begin");
    assert.equal(await sha256File(frozenDisk()), digest);
  });

  test("a child's disk is its own file, sparse, which it may write to its end", async () => {
    const guest = await Guest.open(world, world.frozen);
    const { uid, mode, size, blocks } = await stat(await diskOf(guest));
    assert.equal(uid, Number(statusOf(guest.vm.process.pid, "Uid").split("\t")[0]));
    assert.equal(uid >= jailDefaults.uidFirst, jail !== null);
    assert.deepEqual([mode & 0o777, size], [0o600, scratchBytes]);
    assert.ok(blocks * 512 < scratchBytes / 8, `${blocks} blocks`);
    if (jail !== null) {
      const limits = readFileSync(`/proc/${guest.vm.process.pid}/limits`, "utf8");
      const fileBytesMax = scratchBytes + 64 * 1024 * 1024;
      assert.match(limits, new RegExp(`^Max file size\\s+${fileBytesMax}\\s`, "m"));
    }
    await guest.vm.stop();
  });

  test("a capture holds the disk of its instant, each of them, of forks too", async () => {
    const guest = await Guest.open(world, world.frozen);
    await write(guest, 0, "first");
    const first = await guest.capture();
    await write(guest, 0, "later");
    const later = await guest.capture({ all: true, durable: true });
    await write(guest, 0, "after");
    assert.equal(await read(guest), "after");
    await guest.vm.stop();
    assert.equal(await readIn(first.frozen), "first");
    const child = await Guest.open(world, later.frozen);
    assert.equal(await read(child), "later");
    await write(child, 5, "child");
    const { frozen } = await child.capture();
    await child.vm.stop();
    assert.equal(await readIn(frozen), "later");
    assert.equal(await readIn(frozen, 5), "child");
    assert.equal(await readIn(later.frozen, 5), ".....");
  });

  test("a write that is done between the pause and the snapshot is in the capture", async () => {
    const guest = await Guest.open(world, world.frozen);
    await guest.value("#disk late 0 tardy");
    assert.equal(await read(guest), "begin");
    const { frozen } = await guest.capture();
    assert.equal(await readIn(frozen), "tardy");
    assert.equal(await read(guest), "tardy");
    await guest.vm.stop();
  });

  test("a later owner captures the disk of what it adopted", async () => {
    const guest = await Guest.open(world, world.frozen);
    await write(guest, 0, "early");
    const other = world.fake.engine({ jail });
    const adopted = await other.adopt({ process: guest.vm.process, workDir: guest.workDir });
    const again = guest.with(adopted);
    await again.attach();
    assert.equal(await read(again), "early");
    await assertRunsAndCaptures(again, "owned");
  });

  /** More data than `onFullDisk` has room for: holes need none. */
  const fill = async (guest: Guest): Promise<void> => {
    for (let page = 0; page < 100; page += 1) await write(guest, page * 4096, "taken");
  };

  test("a disk that is full while it is copied leaves no file, and a guest that runs", (t) =>
    onFullDisk(t, dir, async (full) => {
      const guest = await Guest.open(world, world.frozen);
      await fill(guest);
      const disks: DiskCapture[] = [{ kind: "copy", to: join(full, "disk"), bytes: scratchBytes }];
      const spec = await guest.captureSpec({ disks });
      await assert.rejects(guest.vm.capture(spec), { code: "disk_full" });
      assert.deepEqual(await readdir(full), []);
      assert.deepEqual(await readdir(dirname(spec.files.pages)), []);
      await guest.attachAgain();
      assert.equal(await read(guest, 99 * 4096), "taken");
      await assertRunsAndCaptures(guest, "again");
    }));

  test("a child whose disk has no room does not start", (t) =>
    onFullDisk(t, dir, async (full) => {
      const guest = await Guest.open(world, world.frozen);
      await fill(guest);
      const { frozen } = await guest.capture();
      await guest.vm.stop();
      const children = childPids();
      await assert.rejects(restoreIn(full, frozen), { code: "disk_full" });
      assert.deepEqual(childPids(), children);
    }));

  test("a write that is done when the guest goes on is not in the capture", async () => {
    const guest = await Guest.open(world, world.frozen);
    await guest.value("#disk resumed 0 later");
    assert.equal(await read(guest), "begin");
    const { frozen } = await guest.capture();
    assert.equal(await read(guest), "later");
    assert.equal(await readIn(frozen), "begin");
    await guest.vm.stop();
  });

  for (const wrong of ["a link to another file", "another size"]) {
    test(`what a VMM puts in the place of its disk is not taken: ${wrong}`, async () => {
      const guest = await Guest.open(world, world.frozen);
      const disk = await diskOf(guest);
      await rename(disk, `${disk}.aside`);
      if (wrong === "another size") await makeSparse(disk, scratchBytes / 2);
      else await symlink("/etc/hostname", disk);
      const spec = await guest.captureSpec();
      await assert.rejects(guest.vm.capture(spec), { code: "engine_failed" });
      assert.deepEqual(await readdir(dirname(spec.files.pages)), []);
      await rm(disk);
      await rename(`${disk}.aside`, disk);
      await guest.attachAgain();
      await assertRunsAndCaptures(guest, "again");
    });
  }

  test("layers are refused, and a pivot too, before anything is touched", async () => {
    const workDir = join(dir, "layered");
    await mkdir(workDir);
    const scratch = { kind: "layers", layers: [{ file: frozenDisk(), format: "raw" }] } as const;
    const refused = restoreIn(workDir, world.frozen, scratch);
    await assert.rejects(refused, { code: "engine_failed", message: /layers/ });
    assert.deepEqual(await readdir(workDir), []);
    const guest = await Guest.open(world, world.frozen);
    const disks = [{ kind: "pivot", node: "a", overlay: "b" }] as const;
    const capture = guest.vm.capture(await guest.captureSpec({ disks }));
    await assert.rejects(capture, { code: "engine_failed", message: /captured by a copy/ });
    assert.equal(await read(guest), "begin");
    await guest.vm.stop();
  });

  test("a child without the file that its state names does not start", async () => {
    const from = { machine: world.frozen.machine, memory: world.frozen.memory };
    const { vmstateFile, token } = world.frozen;
    const restored = Guest.restore(world, { ...from, vmstateFile, token });
    await assert.rejects(restored, { code: "engine_failed", message: /scratch\.img/ });
  });
}

/** Runs with a directory that has room for a few pages. */
async function onFullDisk(
  t: TestContext,
  dir: string,
  work: (full: string) => Promise<void>,
): Promise<void> {
  const full = await mkdtemp(join(dir, "full-"));
  const mounted = await run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", full]).then(
    () => true,
    () => false,
  );
  if (!mounted) return t.skip("needs the right to mount a tmpfs");
  try {
    await work(full);
  } finally {
    await run(["umount", full]);
  }
}

async function makeSparse(path: string, bytes: number): Promise<void> {
  await using handle = await open(path, "wx");
  await handle.truncate(bytes);
}
