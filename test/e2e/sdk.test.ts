/** The SDK's handles and upstream's TypeScript names against a real daemon. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  Controller,
  ControllerError,
  ForkdError,
  GuestEvalError,
  Sandbox,
  Snapshot,
} from "@forkd/sdk";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { checkedClient } from "../helpers/contract.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";

describe("the SDK", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("sdk", baked);
    daemon = await startDaemon(data.path);
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const at = () => checkedClient(daemon);
  const live = async () => (await daemon.client.listSandboxes()).map(({ id }) => id);

  test("a sandbox ends with its scope", async () => {
    {
      await using sandbox = await Sandbox.create({ snapshotTag: baked.tag, ...at() });
      assert.deepEqual(await live(), [sandbox.id]);
      assert.equal(sandbox.info.identity?.crng_reseeded, true);
      assert.equal((await sandbox.ping()).pong, true);
      assert.equal((await sandbox.refresh()).info.state, "running");
    }
    assert.deepEqual(await live(), []);
  });

  test("children of a snapshot end together", async () => {
    const snapshot = await Snapshot.get(baked.tag, at());
    assert.equal(snapshot.status, "ready");
    {
      await using children = await snapshot.fork({ n: 3 });
      const draws = await Promise.all(
        children.map((child) => child.eval("__import__('os').urandom(8).hex()")),
      );
      assert.equal(new Set(draws).size, 3);
      assert.deepEqual((await live()).sort(), children.map(({ id }) => id).sort());
    }
    assert.deepEqual(await live(), []);
    assert.equal((await Snapshot.get(baked.tag, at())).status, "ready");
  });

  test("exec and eval, with their ways to fail", async () => {
    await using sandbox = await Sandbox.create({ snapshotTag: baked.tag, ...at() });
    const ran = await sandbox.exec("echo $X; pwd; cat; exit 3", {
      ...{ env: { X: "ü" }, cwd: "/usr", stdin: "in" },
    });
    assert.deepEqual([ran.stdout, ran.exit_code], ["ü\n/usr\nin", 3]);
    assert.equal((await sandbox.exec(["sleep", "60"], { timeoutSecs: 0.5 })).timed_out, true);
    await assert.rejects(sandbox.exec(["/no/such"]), (error: unknown) => {
      assert.ok(error instanceof ControllerError && error instanceof ForkdError);
      assert.deepEqual([error.code, error.status], ["exec_failed", 500]);
      assert.ok(error.hint.length > 0);
      return true;
    });
    assert.equal(await sandbox.eval("2+2"), 4);
    assert.deepEqual(await sandbox.eval("numpy.zeros(2).tolist()"), [0, 0]);
    assert.match(String(await sandbox.eval("numpy.zeros")), /^<built-in function zeros>/);
    await assert.rejects(sandbox.eval("1/0"), (error: unknown) => {
      assert.ok(error instanceof GuestEvalError);
      assert.match(error.message, /^eval error: ZeroDivisionError: /);
      assert.match(error.result.traceback ?? "", /division/);
      return true;
    });
    const loop = await sandbox.evaluate("while True: pass", { timeoutSecs: 0.5 });
    assert.equal(loop.timed_out, true);
  });

  test("eval tells what code prints while it runs, and waits for who listens", async () => {
    await using sandbox = await Sandbox.create({ snapshotTag: baked.tag, ...at() });
    const waits = "import os, time\nwhile not os.path.exists('/tmp/go'): time.sleep(0.01)\n";
    const printed: string[] = [];
    // The code goes on only when its first line was heard: nothing kept it back until the end.
    const value = await sandbox.eval(`print("first")\n${waits}print("last")\n6 * 7`, {
      timeoutSecs: 600,
      onOutput: async (text) => {
        if (printed.length === 0) await sandbox.files.write("/tmp/go", "");
        printed.push(text);
      },
    });
    assert.deepEqual([value, printed.join("")], [42, "first\nlast\n"]);
    await assert.rejects(sandbox.eval("1/0", { onOutput: () => undefined }), GuestEvalError);
    // More than all the windows and pipes between the code and its listener.
    let bytes = 0;
    const flood = "import sys\nfor n in range(64): sys.stdout.write('x' * 65535 + '\\n')";
    for await (const event of sandbox.streamEval(flood, { timeoutSecs: 600 })) {
      if (event.type === "stdout") bytes += event.text.length;
      else assert.deepEqual([event.type, "error" in event && event.error], ["result", null]);
    }
    assert.equal(bytes, 64 * 65_536);
    for await (const event of sandbox.streamEval("while True: print('x')")) {
      assert.equal(event.type, "stdout");
      break;
    }
    assert.equal(await sandbox.eval("6 * 7"), 42, "who leaves has interrupted the code");
  });

  test("a deadline and an abort end a call, and the guest goes on", async () => {
    await using sandbox = await Sandbox.create({ snapshotTag: baked.tag, ...at() });
    await assert.rejects(sandbox.exec(["sleep", "1"], { timeoutMs: 100 }), {
      code: "deadline_exceeded",
    });
    const stop = new AbortController();
    const call = sandbox.exec(["sleep", "1"], { signal: stop.signal });
    setTimeout(() => stop.abort(new Error("enough")), 50);
    await assert.rejects(call, { message: "enough" });
    assert.equal(await sandbox.eval("1"), 1);
  });

  test("killed by somebody else", async () => {
    await using sandbox = await Sandbox.create({ snapshotTag: baked.tag, ...at() });
    await daemon.client.deleteSandbox({ params: { id: sandbox.id } });
    await assert.rejects(sandbox.ping(), (error: unknown) => {
      assert.ok(error instanceof ControllerError);
      assert.match(error.code, /^sandbox_(not_found|ended)$/);
      return true;
    });
  });

  test("a branch goes on where its sandbox was, and goes with its scope", async () => {
    await using sandbox = await Sandbox.create({ snapshotTag: baked.tag, ...at() });
    await sandbox.evaluate("kept = 41");
    for (const mode of ["full", "diff", "live"] as const) {
      await using branch = await sandbox.branch({
        tag: `sdk-${mode}`,
        mode,
        wait: mode !== "live",
      });
      assert.deepEqual([branch.tag, branch.branched_from], [`sdk-${mode}`, sandbox.id]);
      const ready = await branch.ready();
      await using children = await ready.fork({ n: 2 });
      for (const child of children) assert.equal(await child.eval("kept + 1"), 42);
    }
    assert.equal(await sandbox.eval("kept"), 41);
    const tags = (await daemon.client.listSnapshots()).map(({ tag }) => tag);
    assert.deepEqual(tags, [baked.tag]);
  });

  test("upstream's README, as it is written", async () => {
    const said = await Sandbox.with({ snapshotTag: baked.tag, ...at() }, async (sb) =>
      sb.exec(["python3", "-c", "print(2+2)"]),
    );
    assert.equal(said.stdout, "4\n");
    assert.deepEqual(await live(), []);

    const ctrl = new Controller(at());
    const [source] = await ctrl.spawnSandboxes({ snapshotTag: baked.tag });
    assert.ok(source !== undefined);
    const ran = await ctrl.execCommand(source.id, ["echo", "hi"], { timeoutSecs: 10 });
    assert.deepEqual([ran.stdout, ran.exit_code], ["hi\n", 0]);
    assert.equal((await ctrl.evalCode(source.id, "6 * 7")).result, "42");
    assert.equal((await ctrl.pingSandbox(source.id)).pong, true);
    assert.deepEqual(await ctrl.getSandbox(source.id), (await ctrl.listSandboxes())[0]);
    assert.ok((await ctrl.listSnapshots()).some(({ tag }) => tag === baked.tag));

    const sb = await Sandbox.create({ snapshotTag: baked.tag, prewarm: true, ...at() });
    assert.equal(await sb.eval("2+2"), 4);
    await sb.kill();
    await sb.kill();

    await ctrl.killSandbox(source.id);
    await assert.rejects(ctrl.getSandbox("sb-missing"), (error: unknown) => {
      assert.ok(error instanceof ControllerError && error.status === 404);
      assert.match(JSON.stringify(error.body), /sb-missing.* not found/);
      return true;
    });
    await assert.rejects(ctrl.deleteSnapshot("no-such-tag"), { status: 404 });
    await assert.rejects(new Controller({ ...at(), token: "" }).listSnapshots(), { status: 401 });
  });

  test("upstream's README: a branch and its children", async () => {
    const ctrl = new Controller(at());
    const [source] = await ctrl.spawnSandboxes({ snapshotTag: baked.tag });
    assert.ok(source !== undefined);
    const checkpoint = await ctrl.branchSandbox(source.id, { tag: "after-warmup", diff: true });
    const children = await ctrl.spawnSandboxes({ snapshotTag: checkpoint.tag, n: 4 });
    assert.equal(children.length, 4);
    for (const { id } of [source, ...children]) await ctrl.killSandbox(id);
    await ctrl.deleteSnapshot(checkpoint.tag);
  });
});
