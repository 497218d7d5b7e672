import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { CaptureSpec } from "@forkd/host/engine/engine.ts";
import { VmJournal } from "@forkd/host/engine/firecracker/journal.ts";
import { isAlive } from "@forkd/host/linux/proc.ts";
import { type FrozenGuest, Guest } from "../../conformance/captured-guest.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { type FirecrackerWorld, makeFirecrackerWorld } from "../../helpers/firecracker-guest.ts";

const skip = skipWithout("root", "compiler", "guest-agent");
const create = "PUT,/snapshot/create";

/** Short enough for a test to wait for, long enough for a busy host to do what works. */
const shortMs = 1_500;

describe("captures of Firecracker", { skip }, () => {
  let dir: string;
  let world: FirecrackerWorld;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "forkd-fcc-"));
    world = await makeFirecrackerWorld({
      dir,
      engineOf: (fake) => fake.engine({ timeouts: { snapshotMs: shortMs, resumeMs: 2 * shortMs } }),
    });
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  const open = (from: FrozenGuest = world.frozen): Promise<Guest> => Guest.open(world, from);
  const valueIn = async (frozen: FrozenGuest, code: string): Promise<string | null> => {
    const guest = await open(frozen);
    const value = await guest.value(code);
    await guest.vm.stop();
    return value;
  };
  const filesOf = (spec: CaptureSpec): Promise<string[]> => readdir(dirname(spec.files.pages));
  const epochOf = async (guest: Guest): Promise<string> =>
    (await VmJournal.open(guest.workDir)).epoch;

  test("the second diff, and the fifth, hold all that differs from the image", async () => {
    const guest = await open();
    const captures: FrozenGuest[] = [];
    for (let number = 0; number < 5; number += 1) {
      await guest.value(`v${number} = ${number} * 11`);
      captures.push((await guest.capture()).frozen);
    }
    const [first, , , , fifth] = captures;
    assert.equal(
      await valueIn(fifth ?? assert.fail(), "[v0, v1, v2, v3, v4]"),
      "[0, 11, 22, 33, 44]",
    );
    const unknown = valueIn(first ?? assert.fail(), "[v0, v1]");
    await assert.rejects(unknown, /v1/);
    await guest.vm.stop();
  });

  test("a state that is saved in between takes nothing from the next diff", async () => {
    const guest = await open();
    await guest.value("early = 5");
    await guest.vm.pause();
    await guest.vm.saveState(join(dir, "between"));
    await guest.vm.resume();
    await guest.value("late = 6");
    const { frozen } = await guest.capture();
    assert.equal(await valueIn(frozen, "early * late"), "30");
    await guest.vm.stop();
  });

  test("a diff is no larger than what was written", async () => {
    const guest = await open();
    await guest.value("x = 1");
    const { result, frozen } = await guest.capture({ durable: true });
    assert.ok(result.pagesBytes > 0 && result.pagesBytes < 1024 * 1024, `${result.pagesBytes}`);
    const { file } = frozen.memory.overlay ?? assert.fail();
    assert.equal((await stat(file)).size, world.machine.memoryMib * 1024 * 1024);
    await guest.vm.stop();
  });

  test("a child of a chain, and a capture of all, need no base", async () => {
    const guest = await open();
    await guest.value("a = 1");
    const { frozen: middle } = await guest.capture();
    await guest.vm.stop();
    const child = await open(middle);
    await child.value("b = a + 1");
    const { frozen } = await child.capture({ all: true, durable: true });
    await child.vm.stop();
    assert.equal(frozen.memory.overlay, null);
    assert.equal(await valueIn(frozen, "(a, b)"), "(1, 2)");
  });

  for (const fault of [
    "before PUT,/snapshot/create lose the disk went away",
    `after ${create} fail late`,
  ]) {
    test(`after '${fault}' the guest runs, and what was written is in the next capture`, async () => {
      const guest = await open();
      await guest.value("a = 1");
      await world.fake.faults(fault);
      const spec = await guest.captureSpec();
      await assert.rejects(guest.vm.capture(spec), { code: "engine_failed" });
      await world.fake.faults();
      assert.deepEqual(await filesOf(spec), []);
      assert.equal(await epochOf(guest), "lost");
      await guest.value("b = a + 1");
      const { frozen } = await guest.capture();
      assert.equal(await valueIn(frozen, "(a, b)"), "(1, 2)");
      await guest.value("c = b + 1");
      const later = await guest.capture();
      assert.equal(await valueIn(later.frozen, "(a, b, c)"), "(1, 2, 3)");
      await guest.vm.stop();
    });
  }

  test("a snapshot that takes too long fails, and the guest runs when it is over", async () => {
    const guest = await open();
    await guest.value("a = 1");
    await world.fake.faults(`before ${create} slow ${shortMs + 500}`);
    const spec = await guest.captureSpec();
    await assert.rejects(guest.vm.capture(spec), { code: "deadline_exceeded" });
    await world.fake.faults();
    assert.deepEqual(await filesOf(spec), []);
    assert.equal(await guest.value("a + 1"), "2");
    const { frozen } = await guest.capture();
    assert.equal(await valueIn(frozen, "a"), "1");
    await guest.vm.stop();
  });

  test("a VMM that hangs in a snapshot is ended: no guest stays paused", async () => {
    const guest = await open();
    await world.fake.faults(`before ${create} hang`);
    const spec = await guest.captureSpec();
    await assert.rejects(guest.vm.capture(spec), { code: "deadline_exceeded" });
    await world.fake.faults();
    await guest.vm.ended;
    assert.equal(isAlive(guest.vm.process), false);
    assert.deepEqual(await filesOf(spec), []);
  });

  test("a VMM that dies in a snapshot fails the capture with its last words", async () => {
    const guest = await open();
    const calls: string[] = [];
    await world.fake.faults(`before ${create} crash`);
    const spec = await guest.captureSpec({ afterResume: async () => void calls.push("after") });
    const failed = { code: "engine_failed", message: /told to crash/ };
    await assert.rejects(guest.vm.capture(spec), failed);
    await world.fake.faults();
    assert.deepEqual(calls, ["after"]);
    assert.deepEqual(await filesOf(spec), []);
  });

  test("a guest that cannot be resumed is ended", async () => {
    const guest = await open();
    await world.fake.faults("before PATCH,/vm fail no", "");
    await assert.rejects(guest.vm.capture(await guest.captureSpec()), { code: "engine_failed" });
    await world.fake.faults();
    await guest.vm.ended;
    assert.equal(isAlive(guest.vm.process), false);
  });

  test("live mode is refused with what to do instead", async () => {
    const guest = await open();
    const live = guest.vm.capture(await guest.captureSpec({ mode: "live" }));
    await assert.rejects(live, { code: "live_unsupported", hint: /mode diff/ });
    assert.equal(await guest.value("6 * 7"), "42");
    await guest.vm.stop();
  });

  test("over its budget a capture fails, and the next one is exact", async () => {
    const guest = await open();
    await guest.value("a = 1");
    const spec = await guest.captureSpec({ maxPauseMs: 0 });
    await assert.rejects(guest.vm.capture(spec), { code: "branch_budget_exceeded" });
    assert.deepEqual(await filesOf(spec), []);
    const { frozen } = await guest.capture();
    assert.equal(await valueIn(frozen, "a"), "1");
    await guest.vm.stop();
  });

  test("a file that exists is left as it is, and the capture fails", async () => {
    const guest = await open();
    const spec = await guest.captureSpec();
    await writeFile(spec.files.pages, "precious");
    await assert.rejects(guest.vm.capture(spec), { code: "engine_failed" });
    assert.equal(await readFile(spec.files.pages, "utf8"), "precious");
    await guest.vm.stop();
  });

  test("what the owner throws before the stop is thrown, and the guest goes on", async () => {
    const guest = await open();
    const spec = await guest.captureSpec({
      beforeStop: () => Promise.reject(new Error("not held")),
    });
    await assert.rejects(guest.vm.capture(spec), /not held/);
    assert.equal(await guest.value("6 * 7"), "42");
    assert.equal(await epochOf(guest), "image");
    await guest.vm.stop();
  });

  test("an adopted VM is captured like any other, with what it was captured with before", async () => {
    const guest = await open();
    await guest.value("a = 1");
    await guest.capture();
    await guest.value("b = 2");
    const { process } = guest.vm;
    const adopted = await world.engine.adopt({ process, workDir: guest.workDir });
    const { frozen } = await guest.with(adopted).capture();
    assert.equal(await valueIn(frozen, "(a, b)"), "(1, 2)");
    await adopted.stop();
  });

  test("a VM whose owner died in a capture is adopted, runs, and is captured as a whole", async () => {
    const guest = await open();
    await guest.value("a = 1");
    await guest.vm.pause();
    // What a daemon that was killed while Firecracker wrote has left behind.
    await (await VmJournal.open(guest.workDir)).apply("diff_begun");
    const adopted = await world.engine.adopt({ process: guest.vm.process, workDir: guest.workDir });
    assert.equal(await epochOf(guest), "lost");
    await adopted.resume();
    const again = guest.with(adopted);
    await again.attach();
    await again.value("b = a + 1");
    const { frozen } = await again.capture();
    assert.equal(await valueIn(frozen, "(a, b)"), "(1, 2)");
    await adopted.stop();
  });
});
