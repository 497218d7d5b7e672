import assert from "node:assert/strict";
import { copyFile, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { before, describe, test } from "node:test";
import { run } from "@forkd/host/lib/exec.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import { eventually } from "../../helpers/eventually.ts";
import { CaptureBench, differingPages, pagesIn, ramBytes } from "./capture-bench.ts";

const skip = missing({ root: true, programs: ["make", "cc"] });
/** Every 1 MiB an extent of 64 KiB. */
const someExtents = Array.from({ length: ramBytes / 1048576 }, (_, index) => {
  return { offset: index * 1048576, length: 65_536 };
});

/** forkd-capture, built to check its own memory, against a VMM that notes what it held. */
describe("forkd-capture", { skip }, () => {
  before(async () => {
    await run(["make", "-s", "-C", "native", "checked"], { cwd: repoRoot });
  });

  for (const options of [[], ["--plain-pagemap"]]) {
    test(`stopped ${options}: exactly the pages that differ, exactly as they were`, async () => {
      await using bench = await CaptureBench.start();
      await bench.capture(...options).finish();
      const truth = await bench.truth();
      assert.ok((await bench.restored()).equals(truth));
      const differing = differingPages(await bench.image(), truth);
      assert.ok(differing.length > 100);
      assert.deepEqual(await pagesIn(bench.path("extents")), differing);
      assert.equal(await readFile(bench.path("vmstate"), "utf8"), "STATE");
      await eventually(() => assert.deepEqual(bench.stopsAndConts, ["stop", "cont"]));
    });
  }

  test("live: as it was at the stop, however much is written meanwhile, five times", async () => {
    await using bench = await CaptureBench.start();
    for (let round = 0; round < 5; round += 1) {
      const done = await bench.capture("--mode", "live").finish();
      assert.ok(Number(done["rounds"]) >= 3);
      assert.ok((await bench.restored()).equals(await bench.truth()), `round ${round}`);
      for (const name of await bench.outputs()) await rm(bench.path(name));
    }
  });

  for (const mode of ["stopped", "live"]) {
    test(`${mode}: over an image of two layers`, async () => {
      await using bench = await CaptureBench.start([], someExtents);
      const layers = ["--overlay", bench.path("overlay")];
      const table = ["--overlay-extents", bench.path("overlay.extents")];
      await bench.capture("--mode", mode, ...layers, ...table).finish();
      const truth = await bench.truth();
      assert.ok((await bench.restored()).equals(truth));
      const differing = new Set(differingPages(await bench.image(), truth));
      const taken = new Set(await pagesIn(bench.path("extents")));
      assert.deepEqual(
        [...differing].filter((page) => !taken.has(page)),
        [],
      );
    });
  }

  test("over an overlay that was made anew since the VMM mapped it", async () => {
    await using bench = await CaptureBench.start([], someExtents);
    await rename(bench.path("overlay"), bench.path("old"));
    await copyFile(bench.path("old"), bench.path("overlay"));
    await rm(bench.path("old"));
    const layers = ["--overlay", bench.path("overlay")];
    const table = ["--overlay-extents", bench.path("overlay.extents")];
    await bench.capture("--mode", "live", ...layers, ...table).finish();
    assert.ok((await bench.restored()).equals(await bench.truth()));
  });

  test("all: the pages' file is the whole RAM, zeros are holes", async () => {
    await using bench = await CaptureBench.start(["idle"], someExtents);
    const layers = ["--overlay", bench.path("overlay")];
    const table = ["--overlay-extents", bench.path("overlay.extents")];
    await bench.capture("--all", ...layers, ...table).finish();
    assert.ok((await readFile(bench.path("pages"))).equals(await bench.truth()));
    assert.equal((await pagesIn(bench.path("extents"))).length, ramBytes / 4096);
    assert.ok((await stat(bench.path("pages"))).blocks * 512 < ramBytes * 0.9);
  });

  test("live is refused where the VMM has no tracking, and the VM is not touched", async () => {
    await using bench = await CaptureBench.start(["untracked"]);
    await bench.capture("--mode", "live").fails("live_unsupported");
    await bench.capture("--mode", "live", "--plain-pagemap").fails("live_unsupported");
    assert.deepEqual(bench.stopsAndConts, []);
    assert.deepEqual(await bench.outputs(), []);
  });

  test("another process, another RAM and a VM that stands are refused", async () => {
    await using bench = await CaptureBench.start(["paused"]);
    await bench.capture("--start-ticks", String(bench.startTicks + 1)).fails("process_gone");
    await bench.capture("--base", bench.path("overlay")).fails("layout_unknown");
    await bench.capture("--ram-size", String(ramBytes / 2)).fails("layout_unknown");
    await bench.capture().fails("monitor_failed");
    assert.deepEqual(bench.stopsAndConts, []);
    assert.deepEqual(await bench.outputs(), []);
  });

  test("a file that is there already is left alone", async () => {
    await using bench = await CaptureBench.start();
    await writeFile(bench.path("extents"), "precious");
    const capture = bench.capture();
    await capture.expect("ready");
    capture.go();
    await capture.expect("resumed");
    await capture.fails("system_failed");
    assert.equal(await readFile(bench.path("extents"), "utf8"), "precious");
    assert.deepEqual(await bench.outputs(), ["extents"]);
  });

  test("answers to a client that was there before are not taken for its own", async () => {
    await using bench = await CaptureBench.start(["stale"]);
    await bench.capture().finish();
    assert.ok((await bench.restored()).equals(await bench.truth()));
  });

  for (const how of ["error", "noise", "flood", "close"]) {
    test(`a monitor that answers with ${how} in the pause: the VM goes on`, async () => {
      await using bench = await CaptureBench.start([`xen-save-devices-state=${how}`]);
      const capture = bench.capture();
      await capture.expect("ready");
      capture.go();
      const error = await capture.fails("monitor_failed");
      assert.deepEqual(await bench.outputs(), []);
      // A monitor that is lost takes no word: who started the capture has to resume the VM then.
      const last = how === "close" ? "stop" : "cont";
      await eventually(() => assert.equal(bench.stopsAndConts.at(-1), last));
      if (how === "error") assert.match(String(error["message"]), /it "may" not/);
      if (how === "close") assert.equal(error["running"], false);
    });
  }

  test("a VMM that dies in the pause", async () => {
    await using bench = await CaptureBench.start(["xen-save-devices-state=die"]);
    const capture = bench.capture();
    await capture.expect("ready");
    capture.go();
    await capture.fails("monitor_failed");
    assert.deepEqual(await bench.outputs(), []);
  });

  for (const how of ["slow", "mute"]) {
    test(`over the budget with a monitor that is ${how}: the guard resumes the VM`, async () => {
      await using bench = await CaptureBench.start([`xen-save-devices-state=${how}`]);
      const capture = bench.capture("--max-pause-ms", "50");
      await capture.expect("ready");
      capture.go();
      const error = await capture.fails("budget_exceeded");
      assert.equal(error["running"], true);
      await eventually(() => assert.deepEqual(bench.stopsAndConts, ["stop", "cont"]));
      assert.deepEqual(await bench.outputs(), []);
    });
  }

  const endings = {
    "the end of its input": (capture: { closeInput(): void }) => capture.closeInput(),
    "a signal": (capture: { terminate(): void }) => capture.terminate(),
  };
  for (const [what, ask] of Object.entries(endings)) {
    test(`${what} before the pause ends it: the VM was never stopped`, async () => {
      await using bench = await CaptureBench.start();
      const capture = bench.capture("--mode", "live");
      await capture.expect("ready");
      ask(capture);
      await capture.fails("aborted");
      assert.deepEqual(bench.stopsAndConts, []);
      assert.deepEqual(await bench.outputs(), []);
    });

    test(`${what} in the pause ends it: the VM goes on`, async () => {
      await using bench = await CaptureBench.start(["xen-save-devices-state=slow"]);
      const capture = bench.capture();
      await capture.expect("ready");
      capture.go();
      await eventually(() => assert.ok(bench.commands.includes("xen-save-devices-state")));
      ask(capture);
      const error = await capture.fails("aborted");
      assert.equal(error["running"], true);
      await eventually(() => assert.deepEqual(bench.stopsAndConts, ["stop", "cont"]));
      assert.deepEqual(await bench.outputs(), []);
    });
  }

  test("pivots are done in the pause, and a failure says how many were", async () => {
    await using bench = await CaptureBench.start(["second=error"]);
    const pivots = ["first", "second"].flatMap((execute) => [
      "--qmp-pivot",
      JSON.stringify({ execute }),
    ]);
    const capture = bench.capture(...pivots);
    await capture.expect("ready");
    assert.ok(!bench.commands.includes("first"));
    capture.go();
    const error = await capture.fails("monitor_failed");
    assert.equal(error["pivoted"], 1);
    assert.equal(error["running"], true);
    const order = ["stop", "xen-save-devices-state", "first", "second", "cont"];
    await eventually(() => assert.deepEqual(bench.commands.slice(-order.length), order));
  });

  test("a VMM that is killed while its pages are copied", async () => {
    await using bench = await CaptureBench.start();
    const capture = bench.capture("--mode", "live");
    await capture.expect("ready");
    bench.kill();
    capture.go();
    const error = await capture.expect("error");
    assert.ok(["process_gone", "monitor_failed"].includes(String(error["code"])));
    assert.equal(await capture.end(), 1);
    assert.deepEqual(await bench.outputs(), []);
  });

  test("options that make no sense are said and exit with 2", async () => {
    await using bench = await CaptureBench.start();
    for (const wrong of [["--mode", "fast"], ["--pid", "-1"], ["--ram-size", "100"], ["extra"]]) {
      assert.equal(await bench.capture(...wrong).end(), 2, wrong.join(" "));
    }
    assert.equal(await bench.capture("--overlay", bench.path("overlay")).end(), 2);
  });
});
