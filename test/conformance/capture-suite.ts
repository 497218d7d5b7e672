import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ForkdError } from "@forkd/api";
import type { CaptureSpec } from "@forkd/host/engine/engine.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { sha256File } from "@forkd/host/lib/hash.ts";
import { type Captured, type FrozenGuest, Guest, type GuestWorld } from "./captured-guest.ts";
import { mergeOverlays } from "./layers.ts";

export interface CaptureSubject extends Omit<GuestWorld, "vms"> {
  readonly frozen: FrozenGuest;
}

const modes = ["stopped", "live"] as const;

/**
 * A guest thread that sweeps over an array, again and again, and fills it with the number of the
 * sweep. At any one instant the numbers never grow from front to back, and differ by one at most: a
 * copy that mixes two instants breaks that.
 */
const startSweeping = `
import numpy, threading
cells = numpy.zeros(24 * 1024 * 1024 // 8, dtype=numpy.int64)
sweeps = 0
free = threading.Event(); free.set()
still = threading.Event()
def sweep():
    global sweeps
    while True:
        for start in range(0, len(cells), 32768):
            if not free.is_set():
                still.set(); free.wait(); still.clear()
            cells[start:start + 32768] = sweeps + 1
        sweeps += 1
threading.Thread(target=sweep, daemon=True).start()
while sweeps < 1: pass
`;

/** True when the array is of one instant, and the sweeps go on from there. */
const checkSweep = `
free.clear(); still.wait()
__steps = numpy.diff(cells)
__whole = bool((__steps <= 0).all()) and int(cells[0]) - int(cells[-1]) in (0, 1)
__before = sweeps
free.set()
while sweeps < __before + 2: pass
`;

/** The captures of Vm.capture, as tests. All guests come from one frozen one. */
export function captureConformance(name: string, makeSubject: () => Promise<CaptureSubject>): void {
  describe(`captures of engine ${name}`, () => {
    let subject: CaptureSubject;
    let world: GuestWorld;

    before(async () => {
      subject = await makeSubject();
      world = { ...subject, vms: [] };
    });
    after(async () => {
      await Promise.all(world.vms.map((vm) => vm.stop()));
    });

    const openGuest = (from = subject.frozen): Promise<Guest> => Guest.open(world, from);
    const valueIn = async (frozen: FrozenGuest, code: string): Promise<string | null> => {
      const guest = await openGuest(frozen);
      const value = await guest.value(code);
      await guest.vm.stop();
      return value;
    };
    const filesOf = (spec: CaptureSpec): Promise<string[]> => readdir(dirname(spec.files.pages));

    for (const mode of modes) {
      test(`mode ${mode}: a guest that never stops writing is of one instant`, async () => {
        const guest = await openGuest();
        await guest.value(startSweeping);
        for (let round = 0; round < 3; round += 1) {
          const { frozen, result } = await guest.capture({ mode });
          assert.ok(result.pauseMs > 0);
          assert.ok(result.copiedBytes >= 24 * 1024 * 1024);
          const child = await openGuest(frozen);
          await child.value(checkSweep);
          assert.equal(await child.value("__whole"), "True");
          await child.vm.stop();
        }
        await guest.value(checkSweep);
        assert.equal(await guest.value("__whole"), "True");
        await guest.vm.stop();
      });

      test(`mode ${mode}: the second and the tenth capture are as exact as the first`, async () => {
        const guest = await openGuest();
        const captures: { captured: Captured; digest: string | null }[] = [];
        for (let number = 1; number <= 10; number += 1) {
          await guest.value(`import hashlib, os; data = os.urandom(3_000_000); number = ${number}`);
          const digest = await guest.value("hashlib.sha256(data).hexdigest()");
          captures.push({ captured: await guest.capture({ mode }), digest });
        }
        assert.equal(await guest.value("number"), "10");
        for (const number of [1, 2, 10]) {
          const { captured, digest } = captures[number - 1] ?? assert.fail();
          const child = await openGuest(captured.frozen);
          assert.equal(await child.value("number"), String(number));
          assert.equal(await child.value("hashlib.sha256(data).hexdigest()"), digest);
          await child.vm.stop();
        }
        await guest.vm.stop();
      });

      test(`mode ${mode}: the pages that a guest made zero again are zero in its child`, async () => {
        const guest = await openGuest();
        await guest.value("data = bytearray(b'x' * 8_000_000)");
        const first = await guest.capture({ mode });
        await guest.value("data[:] = bytes(len(data))");
        const { frozen } = await guest.capture({ mode });
        assert.equal(await valueIn(frozen, "data.count(0)"), "8000000");
        assert.equal(await valueIn(first.frozen, "data.count(b'x')"), "8000000");
        await guest.vm.stop();
      });

      test(`mode ${mode}: a child of a captured guest can be captured`, async () => {
        const guest = await openGuest();
        await guest.value("old = b'o' * 5_000_000; both = bytearray(b'b' * 5_000_000)");
        const { frozen: middle } = await guest.capture({ mode });
        await guest.vm.stop();
        const child = await openGuest(middle);
        await child.value("new = b'n' * 5_000_000; both[:2_500_000] = b'c' * 2_500_000");
        const spec = await child.captureSpec({ mode });
        const token = child.session.nextToken;
        await child.vm.capture(spec);
        await child.vm.stop();
        const to = { file: `${spec.files.pages}.both`, extents: `${spec.files.extents}.both` };
        const layer = { file: spec.files.pages, extents: spec.files.extents };
        const under = middle.memory.overlay ?? assert.fail();
        const ramBytes = middle.machine.memoryMib * 1024 * 1024;
        await mergeOverlays([under, layer], { to, ramBytes });
        const memory = { base: middle.memory.base, overlay: to };
        const vmstateFile = spec.files.vmstate;
        const counts = "(old.count(b'o'), new.count(b'n'), both.count(b'b'), both.count(b'c'))";
        const value = await valueIn({ ...middle, memory, vmstateFile, token }, counts);
        assert.equal(value, "(5000000, 5000000, 2500000, 2500000)");
      });
    }

    test("a capture of all is an image that needs no other", async () => {
      const guest = await openGuest();
      await guest.value("data = b'd' * 5_000_000");
      const { frozen } = await guest.capture({ all: true, durable: true });
      await guest.vm.stop();
      assert.equal(frozen.memory.overlay, null);
      assert.equal((await stat(frozen.memory.base)).size, (await stat(baseOf(subject))).size);
      assert.equal(await valueIn(frozen, "data.count(b'd')"), "5000000");
    });

    test("a layer holds what differs and no more", async () => {
      const guest = await openGuest();
      const idle = await guest.capture();
      await guest.value("import os; data = os.urandom(20_000_000)");
      const full = await guest.capture();
      const grown = full.result.pagesBytes - idle.result.pagesBytes;
      assert.ok(grown >= 20_000_000 && grown < 30_000_000, `${grown} bytes more`);
      const pages = full.frozen.memory.overlay ?? assert.fail();
      const onDisk = (await stat(pages.file)).blocks * 512;
      assert.ok(onDisk <= full.result.pagesBytes * 1.05, `${onDisk} bytes on the disk`);
      await guest.vm.stop();
    });

    test("an adopted VM is captured like any other", async () => {
      const guest = await openGuest();
      await guest.value("kept = 'k' * 3_000_000");
      const { process } = guest.vm;
      const adopted = await world.engine.adopt({ process, workDir: guest.workDir });
      const { frozen } = await guest.with(adopted).capture({ mode: "live" });
      assert.equal(await valueIn(frozen, "kept.count('k')"), "3000000");
      await adopted.stop();
    });

    test("the owner is called before the stop and after the resume, once each", async () => {
      const guest = await openGuest();
      const calls: string[] = [];
      await guest.capture({
        beforeStop: async () => void calls.push("before"),
        afterResume: async () => void calls.push("after"),
      });
      assert.deepEqual(calls, ["before", "after"]);
      await guest.vm.stop();
    });

    test("over its budget the capture fails, the guest goes on, and the next one is exact", async () => {
      const guest = await openGuest();
      await guest.value("data = bytearray(b'1' * 100_000_000)");
      const calls: string[] = [];
      const spec = await guest.captureSpec({
        maxPauseMs: 3,
        afterResume: async () => void calls.push("after"),
      });
      await assert.rejects(guest.vm.capture(spec), { code: "branch_budget_exceeded" });
      assert.deepEqual(calls, ["after"]);
      assert.deepEqual(await filesOf(spec), []);
      await guest.value("data[50_000_000:] = b'2' * 50_000_000");
      const { frozen } = await guest.capture({ mode: "live" });
      assert.equal(
        await valueIn(frozen, "(data.count(b'1'), data.count(b'2'))"),
        "(50000000, 50000000)",
      );
      await guest.vm.stop();
    });

    test("a full disk fails the capture, and the guest goes on", async () => {
      const guest = await openGuest();
      await guest.value("import os; data = os.urandom(20_000_000)");
      const small = join(world.dir, "small");
      await mkdir(small);
      await run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small]);
      try {
        for (const mode of modes) {
          const spec = await guest.captureSpec({ mode });
          const files = { ...spec.files, pages: join(small, "pages") };
          await assert.rejects(guest.vm.capture({ ...spec, files }), { code: "disk_full" });
          assert.deepEqual(await readdir(small), []);
          assert.deepEqual(await filesOf(spec), []);
        }
      } finally {
        await run(["umount", small]);
      }
      const { frozen } = await guest.capture();
      assert.equal(await valueIn(frozen, "len(data)"), "20000000");
      await guest.vm.stop();
    });

    test("a file that exists is left as it is, and the capture fails", async () => {
      const guest = await openGuest();
      const spec = await guest.captureSpec();
      await writeFile(spec.files.pages, "precious");
      await assert.rejects(guest.vm.capture(spec), { code: "engine_failed" });
      assert.equal(await readFile(spec.files.pages, "utf8"), "precious");
      assert.equal(await guest.value("6 * 7"), "42");
      await guest.vm.stop();
    });

    test("what the owner throws is thrown, and the guest goes on", async () => {
      const guest = await openGuest();
      const spec = await guest.captureSpec({
        beforeStop: () => Promise.reject(new ForkdError("agent_unavailable", "not held")),
      });
      await assert.rejects(guest.vm.capture(spec), { code: "agent_unavailable" });
      assert.deepEqual(await filesOf(spec), []);
      assert.equal(await guest.value("6 * 7"), "42");
      await guest.vm.stop();
    });

    test("an aborted capture throws the reason, and the guest goes on", async () => {
      const guest = await openGuest();
      const reason = new ForkdError("busy", "changed my mind");
      const controller = new AbortController();
      const spec = await guest.captureSpec({
        signal: controller.signal,
        beforeStop: async () => controller.abort(reason),
      });
      await assert.rejects(guest.vm.capture(spec), reason);
      assert.deepEqual(await filesOf(spec), []);
      assert.equal(await guest.value("6 * 7"), "42");
      await guest.vm.stop();
    });

    test("a capture that is killed at any instant leaves a VM that runs", async () => {
      const guest = await openGuest();
      await guest.value("data = bytearray(b'k' * 60_000_000)");
      for (let attempt = 0; attempt < 8; attempt += 1) {
        const spec = await guest.captureSpec({
          mode: attempt % 2 === 0 ? "stopped" : "live",
          beforeStop: async () => void sleep(attempt).then(killCaptures),
        });
        await guest.vm.capture(spec).then(
          () => undefined,
          async () => assert.deepEqual(await filesOf(spec), []),
        );
        assert.equal(await guest.value(`data[0] + ${attempt}`), String(107 + attempt));
      }
      const { frozen } = await guest.capture({ mode: "live" });
      assert.equal(await valueIn(frozen, "data.count(b'k')"), "60000000");
      await guest.vm.stop();
    });

    test("a VM that is killed while it is captured fails the capture", async () => {
      const guest = await openGuest();
      const spec = await guest.captureSpec({
        beforeStop: async () => void process.kill(guest.vm.process.pid, "SIGKILL"),
      });
      await assert.rejects(guest.vm.capture(spec), { code: "engine_failed" });
      assert.deepEqual(await filesOf(spec), []);
      assert.equal((await guest.vm.ended).signal, "SIGKILL");
      await assert.rejects(guest.vm.capture(await guest.captureSpec()), { code: "engine_failed" });
    });

    test("no capture has changed the image", async () => {
      const digest = await sha256File(baseOf(subject));
      const guest = await openGuest();
      await guest.value("data = b'd' * 5_000_000");
      for (const mode of modes) await guest.capture({ mode });
      await guest.vm.stop();
      assert.equal(await sha256File(baseOf(subject)), digest);
    });
  });
}

function baseOf({ frozen }: CaptureSubject): string {
  return frozen.memory.base;
}

/** Kills every forkd-capture that this process started. */
function killCaptures(): void {
  for (const name of readdirSync(`/proc/${process.pid}/task`)) {
    const children = readFileSync(`/proc/${process.pid}/task/${name}/children`, "utf8");
    for (const pid of children.split(" ").filter((word) => word !== "")) {
      const comm = readFileSync(`/proc/${pid}/comm`, "utf8").trim();
      if (comm === "forkd-capture") process.kill(Number(pid), "SIGKILL");
    }
  }
}
