import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { before, describe, test } from "node:test";
import type { CaptureSpec, VmEnd } from "@forkd/host/engine/engine.ts";
import { captureQemu } from "@forkd/host/engine/qemu/capture.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { bootId } from "@forkd/host/linux/proc.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import { eventually } from "../../helpers/eventually.ts";
import { CaptureBench } from "./capture-bench.ts";

const skip = missing({ root: true, programs: ["make", "cc"] });
const end: VmEnd = { stopped: true, exitCode: null, signal: null, guestOff: null, log: "" };

interface Outcome {
  readonly pivots: number;
  readonly stops: number;
}

/** The engine's side of a capture, against a VMM that misbehaves. */
describe("a capture with a disk that moves", { skip }, () => {
  before(async () => {
    await run(["make", "-s", "-C", "native", "checked"], { cwd: repoRoot });
  });

  const attempt = async (
    bench: CaptureBench,
    code: string | null,
    changes: Partial<CaptureSpec> = {},
  ): Promise<Outcome> => {
    const identity = { pid: bench.pid, startTicks: bench.startTicks, bootId: bootId() };
    let pivots = 0;
    let stops = 0;
    const stop = async (): Promise<VmEnd> => {
      stops += 1;
      return end;
    };
    const process = { identity, ended: Promise.withResolvers<VmEnd>().promise, stop };
    const workDir = dirname(bench.path("capture.sock"));
    const capture = captureQemu(
      { process, workDir },
      {
        mode: "stopped",
        all: false,
        image: { base: bench.path("base"), overlay: null },
        files: {
          vmstate: bench.path("vmstate"),
          pages: bench.path("pages"),
          extents: bench.path("extents"),
        },
        disks: [{ kind: "pivot", node: "old", overlay: "new" }],
        maxPauseMs: null,
        durable: false,
        beforeStop: async () => undefined,
        afterResume: async () => undefined,
        onPivot: () => {
          pivots += 1;
        },
        ...changes,
      },
    );
    if (code === null) await capture;
    else {
      await assert.rejects(capture, { code });
      assert.deepEqual(await bench.outputs(), []);
    }
    return { pivots, stops };
  };

  test("it moves, and the owner hears of it", async () => {
    await using bench = await CaptureBench.start();
    assert.deepEqual(await attempt(bench, null), { pivots: 1, stops: 0 });
  });

  test("it does not move, and the owner hears nothing", async () => {
    await using bench = await CaptureBench.start(["blockdev-snapshot=error"]);
    assert.deepEqual(await attempt(bench, "engine_failed"), { pivots: 0, stops: 0 });
    await eventually(() => assert.equal(bench.stopsAndConts.at(-1), "cont"));
  });

  test("it moves after the capture was given up, and the owner hears of it", async () => {
    await using bench = await CaptureBench.start(["blockdev-snapshot=slow"]);
    const outcome = await attempt(bench, "branch_budget_exceeded", { maxPauseMs: 350 });
    assert.deepEqual(outcome, { pivots: 1, stops: 0 });
    await eventually(() => assert.equal(bench.stopsAndConts.at(-1), "cont"));
  });

  test("it moves and the capture is killed: the VM runs, and the owner hears of it", async () => {
    await using bench = await CaptureBench.start(["blockdev-snapshot=slow", "stale"]);
    const capture = attempt(bench, "engine_failed");
    await eventually(() => assert.ok(bench.commands.includes("blockdev-snapshot")));
    killCapture();
    assert.deepEqual(await capture, { pivots: 1, stops: 0 });
    await eventually(() => assert.equal(bench.stopsAndConts.at(-1), "cont"));
  });

  test("a VM that cannot be resumed is ended", async () => {
    await using bench = await CaptureBench.start(["xen-save-devices-state=die"]);
    assert.equal((await attempt(bench, "engine_failed")).stops, 1);
  });
});

/** Kills the forkd-capture that this process started. */
function killCapture(): void {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").trim();
  const captures = children.split(" ").filter((pid) => {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "forkd-capture";
  });
  assert.equal(captures.length, 1);
  process.kill(Number(captures[0]), "SIGKILL");
}
