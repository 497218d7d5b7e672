import assert from "node:assert/strict";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type SandboxInfo, sandboxInfoSchema } from "@forkd/api";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { eventually } from "../helpers/eventually.ts";
import { vmmProcesses } from "../helpers/vmm-processes.ts";

describe("sandboxes of a daemon", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let daemon: TestDaemon;
  let children: SandboxInfo[];
  const call = () => daemon.client;
  const first = () => children[0] ?? assert.fail();

  before(async () => {
    baked = await ensureBaked();
    daemon = await startDaemon(baked.dataDir);
    children = await call().createSandboxes({ body: { snapshot_tag: baked.tag, n: 4 } });
  });
  after(() => daemon?.killAll());

  const exec = (body: object, id = first().id) =>
    call().execSandbox({
      params: { id },
      body: { args: [], timeout_secs: 30, env: {}, ...body },
    });
  const evaluate = (code: string, id = first().id) =>
    call().evalSandbox({ params: { id }, body: { code, timeout_secs: 30 } });

  test("each child has a proven identity of its own", async () => {
    assert.equal(children.length, 4);
    for (const child of children) {
      sandboxInfoSchema.parse(child);
      assert.equal(child.identity?.crng_reseeded, true);
      assert.ok(Math.abs(child.identity?.clock_skew_after_ms ?? 1e9) < 50);
      assert.equal(child.hostname, child.id);
    }
    const draws = [
      "__import__('os').urandom(8).hex()",
      "__import__('random').random()",
      "numpy.random.rand()",
      "str(__import__('uuid').uuid4())",
      "open('/etc/machine-id').read()",
      "__import__('socket').gethostname()",
      "open('/proc/sys/kernel/random/uuid').read()",
    ];
    for (const draw of draws) {
      const values = await Promise.all(
        children.map(async ({ id }) => {
          const answer = await evaluate(draw, id);
          assert.equal(answer.error, null);
          return answer.result;
        }),
      );
      assert.equal(new Set(values).size, children.length, `${draw}: ${values}`);
    }
  });

  test("the guest's wall clock is the host's", async () => {
    const before = Date.now() / 1000;
    const { result } = await evaluate("__import__('time').time()");
    const after = Date.now() / 1000;
    assert.ok(Number(result) > before - 0.05 && Number(result) < after + 0.05);
  });

  test("eval keeps its state, returns JSON, captures output, reports errors", async () => {
    assert.equal((await evaluate("a = 20\nb = 22")).exit_code, 0);
    const sum = await evaluate("print('hi'); a + b");
    assert.deepEqual([sum.result, sum.result_json, sum.stdout], ["42", "42", "hi\n"]);
    const zeros = await evaluate("numpy.zeros(5).tolist()");
    assert.deepEqual(JSON.parse(zeros.result_json ?? ""), [0, 0, 0, 0, 0]);
    const failed = await evaluate("1 / 0");
    assert.equal(failed.exit_code, 1);
    assert.match(failed.error ?? "", /ZeroDivisionError/);
    assert.match(failed.traceback ?? "", /division/);
    const large = await evaluate("'x' * 200_000");
    assert.equal(large.result?.length, 200_002);
  });

  test("an eval over its time is interrupted and the state stays", async () => {
    await evaluate("kept = 7");
    const slow = await call().evalSandbox({
      params: { id: first().id },
      body: { code: "while True: pass", timeout_secs: 0.5 },
    });
    assert.equal(slow.timed_out, true);
    assert.equal((await evaluate("kept")).result, "7");
  });

  test("exec: output, code, environment, directory, input", async () => {
    const plain = await exec({ args: ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"] });
    assert.deepEqual([plain.stdout, plain.stderr, plain.exit_code], ["out\n", "err\n", 3]);
    const env = await exec({
      args: ["/bin/sh", "-c", "echo $X; pwd; cat"],
      env: { X: "y" },
      cwd: "/usr",
      stdin: "input",
    });
    assert.equal(env.stdout, "y\n/usr\ninput");
    const user = await exec({ args: ["/usr/bin/id", "-un"], user: "nobody" });
    assert.equal(user.stdout, "nobody\n");
    const python = await exec({ args: ["python3", "-c", "import sys; print(sys.argv)", "ä\n"] });
    assert.equal(python.stdout, "['-c', 'ä\\\\n']\n".replace("\\\\n", "\\n"));
  });

  test("exec: a deadline ends the whole process group, a signal is named", async () => {
    const slow = await exec({ args: ["/bin/sh", "-c", "sleep 77 & sleep 77"], timeout_secs: 1 });
    assert.deepEqual([slow.timed_out, slow.signal, slow.exit_code], [true, "SIGKILL", -9]);
    const left = await exec({ args: ["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"] });
    assert.doesNotMatch(left.stdout, /sleep 77/);
    const term = await exec({ args: ["/bin/sh", "-c", "kill -TERM $$"] });
    assert.deepEqual([term.signal, term.exit_code], ["SIGTERM", -15]);
  });

  test("exec: what cannot run says why", async () => {
    await assert.rejects(exec({ args: ["/no/such/program"] }), { code: "exec_failed" });
    await assert.rejects(exec({ args: ["/bin/true"], cwd: "/no/dir" }), { code: "bad_request" });
    await assert.rejects(exec({ args: ["/bin/true"], user: "who" }), { code: "bad_request" });
    await assert.rejects(exec({ args: [] }), { code: "bad_request" });
  });

  test("exec: a lot of output is cut at the bound and flagged", async () => {
    const flood = await exec({ args: ["head", "-c", "9000000", "/dev/zero"] });
    assert.equal(flood.truncated, true);
    assert.equal(flood.stdout.length, 8 * 1024 * 1024);
    assert.equal(flood.exit_code, 0);
  });

  test("many execs and evals at one time find their own answers", async () => {
    const answers = await Promise.all(
      Array.from({ length: 24 }, async (_, i) => {
        const id = children[i % children.length]?.id ?? "";
        if (i % 2 === 0) return (await evaluate(`${i} * 2`, id)).result;
        return (await exec({ args: ["/bin/echo", String(i * 2)] }, id)).stdout.trim();
      }),
    );
    assert.deepEqual(
      answers,
      Array.from({ length: 24 }, (_, i) => String(i * 2)),
    );
  });

  test("what one child writes, no other sees, and the root image stays as it is", async () => {
    const [a, b] = children;
    await exec({ args: ["/bin/sh", "-c", "echo mine > /etc/motd; rm -f /usr/bin/env"] }, a?.id);
    const other = await exec({ args: ["/bin/sh", "-c", "cat /etc/motd; ls /usr/bin/env"] }, b?.id);
    assert.doesNotMatch(other.stdout, /mine/);
    assert.match(other.stdout, /\/usr\/bin\/env/);
    const images = await readdir(join(baked.dataDir, "rootfs"));
    const image = images.find((name) => name.endsWith(".img")) ?? assert.fail();
    assert.equal((await stat(join(baked.dataDir, "rootfs", image))).mode & 0o222, 0);
  });

  test("state.json shows operators what there is", async () => {
    const text = await readFile(join(baked.dataDir, "state.json"), "utf8");
    const state = JSON.parse(text);
    assert.deepEqual(Object.keys(state.sandboxes).sort(), children.map(({ id }) => id).sort());
    assert.equal(state.snapshots[baked.tag].status, "ready");
  });

  test("list, get, ping", async () => {
    const listed = await call().listSandboxes();
    assert.deepEqual(listed.map(({ id }) => id).sort(), children.map(({ id }) => id).sort());
    assert.deepEqual(await call().getSandbox({ params: { id: first().id } }), first());
    const pong = await call().pingSandbox({ params: { id: first().id } });
    assert.equal(pong.pong, true);
    assert.equal(pong.warmup_ready, true);
    assert.match(pong.numpy_version, /^\d/);
    const snapshots = await call().listSnapshots();
    assert.equal(snapshots.find(({ tag }) => tag === baked.tag)?.status, "ready");
  });

  test("upstream's TCP door answers inside the guest", async () => {
    const ask = (request: object): string =>
      `import socket; s = socket.create_connection(('127.0.0.1', 8888)); ` +
      `s.sendall(${JSON.stringify(JSON.stringify(request))}.encode() + b'\\n'); ` +
      "s.shutdown(socket.SHUT_WR); print(s.makefile().read())";
    const talk = async (request: object) => {
      const { stdout, stderr } = await exec({ args: ["python3", "-c", ask(request)] });
      assert.equal(stderr, "");
      return JSON.parse(stdout);
    };
    assert.equal((await talk({ action: "ping" })).pong, true);
    const ran = await talk({ action: "exec", args: ["echo", "x"] });
    assert.deepEqual([ran.stdout, ran.exit_code], ["x\n", 0]);
    assert.equal((await talk({ action: "eval", code: "6 * 7" })).result, "42");
    assert.equal((await talk({ action: "nope" })).exit_code, 1);
  });

  test("a guest that dies is gone from the list, its directory too", async () => {
    const victim = children.pop() ?? assert.fail();
    process.kill(victim.pid ?? assert.fail(), "SIGKILL");
    await eventually(async () => {
      const ids = (await call().listSandboxes()).map(({ id }) => id);
      assert.equal(ids.includes(victim.id), false);
      assert.equal((await readdir(join(baked.dataDir, "work"))).includes(victim.id), false);
    });
    await assert.rejects(call().pingSandbox({ params: { id: victim.id } }), {
      code: "sandbox_ended",
      message: /engine_crash/,
    });
  });

  test("delete ends the VM and what it held", async () => {
    const { id, pid } = children.pop() ?? assert.fail();
    await call().deleteSandbox({ params: { id } });
    assert.throws(() => process.kill(pid ?? assert.fail(), 0));
    assert.equal((await readdir(join(baked.dataDir, "work"))).includes(id), false);
    await call().deleteSandbox({ params: { id } });
    await assert.rejects(call().deleteSandbox({ params: { id: "sb-0-0" } }), {
      code: "sandbox_not_found",
    });
  });

  test("bad requests are refused with their reasons", async () => {
    const spawn = (body: object) =>
      call().createSandboxes({ body: { snapshot_tag: baked.tag, ...body } });
    await assert.rejects(spawn({ n: 0 }), { code: "invalid_count" });
    await assert.rejects(spawn({ n: 1001 }), { code: "invalid_count" });
    await assert.rejects(spawn({ snapshot_tag: "../x" }), { code: "invalid_tag" });
    await assert.rejects(spawn({ snapshot_tag: "unknown" }), { code: "snapshot_not_found" });
    await assert.rejects(spawn({ min_isolation: "vm" }), { code: "snapshot_incompatible" });
    await assert.rejects(call().deleteSnapshot({ params: { tag: "unknown" } }), {
      code: "snapshot_not_found",
    });
  });

  test("a second daemon on the same data directory is refused", async () => {
    await assert.rejects(startDaemon(baked.dataDir), /belongs to the daemon with pid/);
  });

  test("sandboxes survive a stop of the daemon, and a kill, with all that they know", async () => {
    assert.ok(children.length > 0);
    await evaluate("survivor = 'yes'");
    for (const end of [() => daemon.stop(), () => daemon.crash()]) {
      await end();
      assert.equal(vmmProcesses(baked.dataDir).length, children.length);
      daemon = await startDaemon(baked.dataDir);
      assert.deepEqual(await call().getSandbox({ params: { id: first().id } }), first());
      assert.equal((await evaluate("survivor")).result, "'yes'");
      assert.equal((await exec({ args: ["/bin/echo", "on"] })).stdout, "on\n");
    }
  });

  test("a sandbox that died while no daemon ran is not adopted, the others are", async () => {
    await call().createSandboxes({ body: { snapshot_tag: baked.tag, n: 1 } });
    const victim = (await call().listSandboxes()).at(-1) ?? assert.fail();
    await daemon.crash();
    process.kill(victim.pid ?? assert.fail(), "SIGKILL");
    daemon = await startDaemon(baked.dataDir);
    const ids = (await call().listSandboxes()).map(({ id }) => id);
    assert.equal(ids.includes(victim.id), false);
    assert.equal(ids.includes(first().id), true);
    assert.equal((await readdir(join(baked.dataDir, "work"))).includes(victim.id), false);
  });

  test("a daemon that is killed while it forks leaves nothing that its next life does not know", async () => {
    const spawning = call().createSandboxes({ body: { snapshot_tag: baked.tag, n: 6 } });
    spawning.catch(() => undefined);
    await eventually(async () => {
      assert.ok((await readdir(join(baked.dataDir, "work"))).length > children.length);
    });
    await daemon.crash();
    daemon = await startDaemon(baked.dataDir);
    const ids = (await call().listSandboxes()).map(({ id }) => id);
    assert.deepEqual((await readdir(join(baked.dataDir, "work"))).sort(), ids.sort());
    assert.equal(vmmProcesses(baked.dataDir).length, ids.length);
  });

  test("delete works on adopted sandboxes; then nothing is left", async () => {
    assert.equal(await daemon.killAll(), 0);
    assert.deepEqual(vmmProcesses(baked.dataDir), []);
    assert.deepEqual(await readdir(join(baked.dataDir, "work")), []);
  });
});
