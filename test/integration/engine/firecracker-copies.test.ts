import assert from "node:assert/strict";
import {
  chmod,
  copyFile,
  lstat,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ForkdError } from "@forkd/api";
import { copyDisk, moveOut } from "@forkd/host/engine/firecracker/files.ts";
import { jailDefaults } from "@forkd/host/engine/firecracker/jail.ts";
import { VmJournal } from "@forkd/host/engine/firecracker/journal.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { sha256File } from "@forkd/host/lib/hash.ts";
import { findProcess, identifyProcess, waitUntilGone } from "@forkd/host/linux/proc.ts";
import { Guest } from "../../conformance/captured-guest.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { childPids } from "../../helpers/child-pids.ts";
import { type FirecrackerWorld, makeFirecrackerWorld } from "../../helpers/firecracker-guest.ts";
import { ownProgram, slowProgram } from "../../helpers/own-program.ts";

const skip = skipWithout("root", "compiler", "guest-agent");
const scratchMib = 16;
const scratchBytes = scratchMib * 1024 * 1024;
const goneTimeoutMs = 20_000;
const unwanted = new ForkdError("sandbox_ended", "it is not wanted any more");

describe("copies of what a Firecracker writes", { skip }, () => {
  let dir: string;
  let world: FirecrackerWorld;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "forkd-fcc-"));
    world = await makeFirecrackerWorld({
      dir,
      scratchMib,
      engineOf: (fake) => fake.engine({ jail: jailDefaults }),
    });
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  const fileOf = async ({ workDir }: Guest, name: string): Promise<string> =>
    join((await VmJournal.open(workDir)).dir, name);
  const assertGoesOn = async (guest: Guest): Promise<void> => {
    await guest.value("#disk write 0 again");
    const { frozen } = await guest.capture();
    await guest.vm.stop();
    const child = await Guest.open(world, frozen);
    assert.equal(await child.value("#disk read 0 5"), "again");
    await child.vm.stop();
  };

  test("a copy that nobody waits for any more is given up", async () => {
    const from = world.frozen.scratch ?? assert.fail();
    const signal = AbortSignal.abort(unwanted);
    using _slow = await slowProgram(dir, "cp");
    const copy = copyDisk({ from, bytes: scratchBytes, signal }, join(dir, "given-up"));
    await assert.rejects(copy, unwanted);
  });

  test("a capture that is given up while it copies leaves nothing, and its guest goes on", async () => {
    const guest = await Guest.open(world, world.frozen);
    const giveUp = new AbortController();
    const spec = await guest.captureSpec({ signal: giveUp.signal });
    {
      using slow = await slowProgram(dir, "cp");
      const refused = assert.rejects(guest.vm.capture(spec), unwanted);
      const copier = await slow.begun;
      giveUp.abort(unwanted);
      await refused;
      assert.equal(findProcess(copier), undefined);
    }
    assert.deepEqual(await readdir(dirname(spec.files.pages)), []);
    await assertGoesOn(guest);
  });

  test("a copy that would make the guest stand for too long is given up", async () => {
    const guest = await Guest.open(world, world.frozen);
    const spec = await guest.captureSpec({ maxPauseMs: 200 });
    {
      using _slow = await slowProgram(dir, "cp");
      await assert.rejects(guest.vm.capture(spec), { code: "branch_budget_exceeded" });
    }
    assert.deepEqual(await readdir(dirname(spec.files.pages)), []);
    await assertGoesOn(guest);
  });

  test("a restore that is given up while it copies starts no VMM", async () => {
    const giveUp = new AbortController();
    const children = childPids();
    using slow = await slowProgram(dir, "cp");
    const restored = Guest.restore(world, world.frozen, { signal: giveUp.signal });
    const refused = assert.rejects(restored, unwanted);
    await slow.begun;
    giveUp.abort(unwanted);
    await refused;
    assert.deepEqual(childPids(), children);
  });

  test("a disk is synced before its guest stands", async () => {
    const guest = await Guest.open(world, world.frozen);
    const note = join(dir, "synced");
    using sync = await ownProgram(dir, "sync", `readlink "$last" > '${note}'; real "$@"`);
    let synced = "";
    const beforeStop = async (): Promise<void> => {
      synced = await readFile(note, "utf8");
    };
    await guest.capture({ beforeStop });
    sync[Symbol.dispose]();
    assert.equal(synced.trim(), await fileOf(guest, "scratch.img"));
    await guest.vm.stop();
  });

  test("a capture that is given up while it syncs has not stopped its guest", async () => {
    const guest = await Guest.open(world, world.frozen);
    const giveUp = new AbortController();
    const beforeStop = async (): Promise<void> => assert.fail("it was stopped");
    const spec = await guest.captureSpec({ signal: giveUp.signal, beforeStop });
    {
      using slow = await slowProgram(dir, "sync");
      const refused = assert.rejects(guest.vm.capture(spec), unwanted);
      await slow.begun;
      giveUp.abort(unwanted);
      await refused;
    }
    assert.equal(guest.session.failure, undefined);
    await assertGoesOn(guest);
  });

  test("RAM is copied from the file that was looked at, whatever its name is given to", async () => {
    const guest = await Guest.open(world, world.frozen);
    const pages = await fileOf(guest, "pages.img");
    const secret = join(dir, "secret");
    await copyFile(world.frozen.memory.base, secret);
    await chmod(secret, 0o644);
    const swap = `mv '${pages}' '${pages}.aside' && ln -s '${secret}' '${pages}'`;
    using cp = await ownProgram(dir, "cp", `case "$last" in */pages) ${swap};; esac; real "$@"`);
    const spec = await guest.captureSpec();
    await guest.vm.capture(spec);
    cp[Symbol.dispose]();
    assert.equal((await lstat(pages)).isSymbolicLink(), true);
    assert.equal((await stat(secret)).mode & 0o777, 0o644);
    assert.equal(await sha256File(spec.files.pages), await sha256File(`${pages}.aside`));
    await guest.vm.stop();
  });

  test("what a VMM wrote is moved to another file system too, and no link is", async (t) => {
    const elsewhere = await mkdtemp("/dev/shm/forkd-fcc-");
    try {
      if ((await stat(elsewhere)).dev === (await stat(dir)).dev) {
        return t.skip("needs /dev/shm on a file system of its own");
      }
      const [from, to] = [join(dir, "written"), join(elsewhere, "taken")];
      await writeFile(from, "bytes", { mode: 0o644 });
      await moveOut(from, to, 5);
      assert.equal(await readFile(to, "utf8"), "bytes");
      assert.equal((await stat(to)).mode & 0o777, 0o600);
      await assert.rejects(stat(from), { code: "ENOENT" });
      await symlink(to, from);
      await assert.rejects(moveOut(from, join(elsewhere, "link"), 5), { code: "engine_failed" });
    } finally {
      await rm(elsewhere, { recursive: true });
    }
  });

  test("who copies dies with whom it copies for", async () => {
    const from = world.frozen.scratch ?? assert.fail();
    const program = join(import.meta.dirname, "../../helpers/copying.ts");
    const argv = [join(repoRoot, "scripts/node"), program, from, join(dir, "orphan")];
    const killed = new AbortController();
    using slow = await slowProgram(dir, "cp");
    const ended = assert.rejects(run(argv, { signal: killed.signal }), unwanted);
    const copier = identifyProcess(await slow.begun) ?? assert.fail("nobody copies");
    killed.abort(unwanted);
    await ended;
    assert.ok(await waitUntilGone(copier, goneTimeoutMs), "it copies on");
  });
});
