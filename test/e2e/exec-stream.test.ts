/** Commands that outlive their connections: streams, terminals, signals, returning, bad input. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { limits } from "@forkd/api";
import { type GuestProcess, Sandbox } from "@forkd/sdk";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { checkedClient } from "../helpers/contract.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";
import { execCrowd } from "../helpers/exec-crowd.ts";

const tty = { rows: 30, cols: 100 };
/** For a guest that is emulated on a busy host. */
const patience = { timeoutMs: 30_000 };
const floodBytes = 100 * 1024 * 1024;
/** Writes so many bytes, and in /tmp/written how many it has got rid of. */
const flood = `
import os
left, written = ${floodBytes}, os.open("/tmp/written", os.O_CREAT | os.O_WRONLY)
while left > 0:
    left -= os.write(1, b"x" * min(left, 65536))
    os.pwrite(written, b"%12d" % (${floodBytes} - left), 0)
`;
/** A pipe of Linux, and the write that waits for it. */
const guestPipeBytes = 2 * 65_536;

describe("exec streams", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;
  let sandbox: Sandbox;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("exec-stream", baked);
    daemon = await startDaemon(data.path);
    sandbox = await Sandbox.create({ snapshotTag: baked.tag, ...at() });
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const at = () => checkedClient(daemon);

  /** Of every process of the guest, in one line; not every image has ps. */
  const commandLines = async (): Promise<string> =>
    (await sandbox.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).stdout;

  /** Reads an output until it holds a text. */
  const readUntil = async (process: GuestProcess, text: string): Promise<string> => {
    let seen = "";
    const decoder = new TextDecoder();
    const reader = readers.get(process) ?? process.stdout[Symbol.asyncIterator]();
    readers.set(process, reader);
    while (!seen.includes(text)) {
      const { value, done } = await reader.next();
      if (done === true) assert.fail(`the output ended without ${JSON.stringify(text)}: ${seen}`);
      seen += decoder.decode(value, { stream: true });
    }
    return seen;
  };
  const readers = new WeakMap<GuestProcess, AsyncIterator<Uint8Array>>();

  test("input, both outputs and the exit code", async () => {
    await using process = await sandbox.spawn("cat; echo over >&2; exit 3", {
      stdin: true,
      env: { X: "1" },
    });
    await process.write("one\n");
    assert.equal(await readUntil(process, "one\n"), "one\n");
    const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
    await process.write(bytes);
    await process.end();
    const parts: Uint8Array[] = [];
    const rest = readers.get(process);
    for (let next = await rest?.next(); next?.done === false; next = await rest?.next()) {
      parts.push(next.value);
    }
    assert.deepEqual(Buffer.concat(parts), Buffer.from(bytes), "every byte, as it was");
    assert.equal(await process.stderr.text(), "over\n");
    const end = await process.wait();
    assert.deepEqual([end.exit_code, end.signal, end.timed_out], [3, null, false]);
    assert.equal(process.offset, 4 + 256 + 5);
  });

  test("a terminal: its size, what is typed, signals by keys and by name", async () => {
    await using shell = await sandbox.spawn(["/bin/sh"], { tty, env: { PS1: "$ " } });
    assert.equal(shell.tty, true);
    await readUntil(shell, "$ ");
    await shell.write("stty size; tty\n");
    assert.match(await readUntil(shell, "/dev/pts/"), /30 100\r\n/);
    shell.resize({ rows: 51, cols: 77 });
    await eventually(async () => {
      await shell.write("stty size\n");
      assert.match(await readUntil(shell, "\r\n$ "), /51 77\r\n/);
    }, patience);
    await shell.write("sleep 60; echo by-key=$?\n");
    await eventually(async () => {
      assert.match(await commandLines(), / sleep 60 /);
    }, patience);
    await shell.write("\x03");
    await shell.write("echo after-key\n");
    await readUntil(shell, "after-key\r\n");
    await shell.write("exit 7\n");
    assert.equal((await shell.wait()).exit_code, 7);
  });

  test("signals reach the process group; an unknown one is refused", async () => {
    await using process = await sandbox.spawn(
      "trap 'echo got; exit 9' USR1; echo on; while :; do sleep 0.1; done",
    );
    await readUntil(process, "on");
    process.signal("SIGUSR1");
    await readUntil(process, "got");
    assert.equal((await process.wait()).exit_code, 9);
    await using killed = await sandbox.spawn("sleep 60 & sleep 60");
    killed.kill();
    const end = await killed.wait();
    assert.deepEqual([end.exit_code, end.signal], [-9, "SIGKILL"]);
    await using odd = await sandbox.spawn("sleep 60");
    odd.signal("SIGNOPE");
    await assert.rejects(odd.wait(), { code: "bad_request" });
    await using late = await sandbox.spawn("sleep 60", { timeoutSecs: 0.2 });
    assert.deepEqual(await late.wait().then(({ timed_out, signal }) => [timed_out, signal]), [
      true,
      "SIGKILL",
    ]);
  });

  test("left, listed, returned to with what was missed, taken over, killed", async () => {
    const first = await sandbox.spawn("echo a; read x; echo $x; read y; echo $y; sleep 60", {
      stdin: true,
    });
    await readUntil(first, "a\n");
    await first.write("b\n");
    await readUntil(first, "b\n");
    await first.detach();
    await assert.rejects(first.wait(), { code: "sandbox_busy" });
    const listed = (await sandbox.execs()).find(({ exec_id }) => exec_id === first.id);
    assert.deepEqual(
      [listed?.command, listed?.running, listed?.attached, listed?.output_bytes, listed?.end],
      ["/bin/sh", true, false, 4, null],
    );

    const second = await sandbox.attach(first.id, { offset: 2 });
    assert.equal(await readUntil(second, "b\n"), "b\n");
    const third = await sandbox.attach(first.id);
    assert.equal(await readUntil(third, "b\n"), "a\nb\n");
    await assert.rejects(second.wait(), { code: "sandbox_busy" });
    await third.write("c\n");
    await readUntil(third, "c\n");
    assert.equal(third.offset, 6);

    await sandbox.killExec(first.id);
    assert.equal((await third.wait()).signal, "SIGKILL");
    assert.ok(!(await sandbox.execs()).some(({ exec_id }) => exec_id === first.id));
    await assert.rejects(sandbox.attach(first.id), { code: "exec_not_found" });
    await assert.rejects(sandbox.killExec(first.id), { code: "exec_not_found" });
    await assert.rejects(sandbox.killExec("nonsense"), { code: "invalid_id" });
  });

  test("an end is remembered, with the last output", async () => {
    const process = await sandbox.spawn("head -c 1000000 /dev/zero; echo end", { onClose: "keep" });
    await process.detach();
    await eventually(async () => {
      const listed = (await sandbox.execs()).find(({ exec_id }) => exec_id === process.id);
      assert.deepEqual([listed?.running, listed?.end?.exit_code], [false, 0]);
      assert.equal(listed?.output_bytes, 1_000_004);
      assert.equal(listed?.output_from, 1_000_004 - limits.execReplayBytes);
    }, patience);
    const again = await sandbox.attach(process.id);
    const text = await again.stdout.text();
    assert.equal(text.length, limits.execReplayBytes);
    assert.ok(text.endsWith("\0end\n"));
    assert.equal((await again.wait()).exit_code, 0);
    await sandbox.killExec(process.id);
  });

  test("a slow reader holds one window, and nobody else", async () => {
    await using process = await sandbox.spawn(["python3", "-c", flood]);
    const written = async () => Number((await sandbox.exec("cat /tmp/written")).stdout);
    // It goes on until it may not: twice the same is where it stands.
    const stands = await eventually(async () => {
      const before = await written();
      const now = await written();
      assert.ok(now >= limits.execWindowBytes && now === before);
      return now;
    }, patience);
    assert.ok(stands <= limits.execWindowBytes + guestPipeBytes, `${stands} bytes are under way`);
    await using other = await sandbox.spawn("head -c 2000000 /dev/zero");
    let others = 0;
    for await (const chunk of other.stdout) others += chunk.length;
    assert.equal(others, 2_000_000);
    const later = await written();
    assert.ok(later <= limits.execWindowBytes + guestPipeBytes, `${later} bytes are under way`);
    let bytes = 0;
    for await (const chunk of process.stdout) bytes += chunk.length;
    assert.equal(bytes, floodBytes);
    assert.equal((await process.wait()).exit_code, 0);
  });

  test("input that is not read costs a window, and a signal still arrives", async () => {
    await using process = await sandbox.spawn("sleep 60", { stdin: true });
    let sent = 0;
    const feed = async (): Promise<void> => {
      for (;;) {
        await process.write(new Uint8Array(32_768));
        sent += 32_768;
      }
    };
    void feed().catch(() => undefined);
    const stands = await eventually(async () => {
      const before = sent;
      await sandbox.exec("true");
      assert.ok(sent >= limits.execWindowBytes && sent === before);
      return sent;
    }, patience);
    assert.ok(stands <= 2 * limits.execWindowBytes + guestPipeBytes, `${stands} bytes were taken`);
    process.signal("SIGTERM");
    assert.equal((await process.wait()).signal, "SIGTERM");
  });

  test("a client that dies ends its command, or leaves it, as was asked", async () => {
    const { WebSocket } = await import("ws");
    const sockets: InstanceType<typeof WebSocket>[] = [];
    const webSocket = (url: string, protocols: string[]) => {
      const socket = new WebSocket(url, protocols);
      sockets.push(socket);
      return socket as never;
    };
    const own = await Sandbox.get(sandbox.id, { ...at(), webSocket });
    const kept = await own.spawn("sleep 61", { onClose: "keep" });
    const doomed = await own.spawn("cat /dev/zero; sleep 62");
    for (const socket of sockets) socket.terminate();
    await assert.rejects(kept.wait(), { code: "daemon_unreachable" });
    await eventually(async () => {
      const execs = await sandbox.execs();
      assert.ok(!execs.some(({ exec_id }) => exec_id === doomed.id));
      const left = execs.find(({ exec_id }) => exec_id === kept.id);
      assert.deepEqual([left?.running, left?.attached], [true, false]);
    }, patience);
    await sandbox.killExec(kept.id);
  });

  test("an abort and a scope end a command", async () => {
    const stop = new AbortController();
    const process = await sandbox.spawn("sleep 63", { signal: stop.signal });
    stop.abort(new Error("enough"));
    await assert.rejects(process.wait(), { message: "enough" });
    {
      await using scoped = await sandbox.spawn("sleep 63");
      assert.ok(scoped.pid > 1);
    }
    await eventually(async () => {
      assert.doesNotMatch(await commandLines(), / sleep 63 /);
    }, patience);
    const gone = AbortSignal.abort(new Error("before"));
    await assert.rejects(sandbox.spawn("true", { signal: gone }), { message: "before" });
  });

  test("commands go on while the daemon is away, and while their sandbox is branched", async () => {
    const process = await sandbox.spawn("echo a; read x; echo $x", { stdin: true });
    await readUntil(process, "a\n");
    await process.detach();
    // No scopes: they would end with the daemon that made them, which goes away.
    const branch = await sandbox.branch({ tag: "exec-stream-branch" });
    const [child] = await (await branch.ready()).fork({ n: 1 });
    assert.ok(child !== undefined);
    await daemon.stop();
    daemon = await startDaemon(data.path);
    sandbox = await Sandbox.get(sandbox.id, at());
    for (const [guest, word] of [
      [sandbox, "parent"],
      [await Sandbox.get(child.id, at()), "child"],
    ] as const) {
      const again = await guest.attach(process.id);
      await again.write(`${word}\n`);
      assert.equal(await again.stdout.text(), `a\n${word}\n`);
      assert.equal((await again.wait()).exit_code, 0);
    }
    await daemon.client.deleteSandbox({ params: { id: child.id } });
    await daemon.client.deleteSnapshot({ params: { tag: "exec-stream-branch" } });
  });

  test("words, environment, directory and output that are no plain text", async () => {
    const run = async (args: string[], more: object = {}) => {
      await using process = await sandbox.spawn(args, more);
      const text = await process.stdout.text();
      return [text, (await process.wait()).exit_code];
    };
    const odd = "\x01\x7f\u00fc\u{1f600}\ufeff \n\t'\"\\$(x)";
    assert.deepEqual(await run(["printf", "%s", odd]), [odd, 0]);
    assert.deepEqual(await run(["sh", "-c", 'printf %s "$V"'], { env: { V: odd } }), [odd, 0]);
    for (const bad of ["a\0b", "half \ud83d", "\udc00"]) {
      const calls = [
        () => sandbox.spawn(["echo", bad]),
        () => sandbox.spawn(["true"], { env: { V: bad } }),
        () => sandbox.spawn(["true"], { cwd: bad }),
        () => sandbox.exec(["echo", bad]),
        () => sandbox.exec(["true"], { env: { V: bad } }),
        () => sandbox.exec(["true"], { cwd: bad }),
        () => sandbox.spawn(["true"], { env: { [bad]: "x" } }),
        () => sandbox.exec(["true"], { env: { [bad]: "x" } }),
        () => sandbox.spawn(["true"], { user: bad }),
        () => sandbox.exec(["true"], { user: bad }),
        () => sandbox.files.write("/tmp/ok", "x", { user: bad }),
        () => sandbox.files.mkdir(`/tmp/${bad}`),
        () => sandbox.files.rename("/etc/hostname", `/tmp/${bad}`),
      ];
      for (const call of calls) await assert.rejects(call(), { code: "bad_request" });
    }
    // Where a NUL is a character like others, only half a one is refused.
    const half = "half \ud83d";
    await assert.rejects(sandbox.exec(["cat"], { stdin: half }), { code: "bad_request" });
    await assert.rejects(sandbox.eval(`"${half}"`), { code: "bad_request" });
    assert.equal((await sandbox.exec(["cat"], { stdin: "a\0b" })).stdout, "a\0b");
    assert.match((await sandbox.evaluate("1\0")).error ?? "", /null bytes/);
    assert.equal(await sandbox.eval(JSON.stringify(odd)), odd);
    const bytes = await sandbox.evaluate("__import__('os').write(1, b'a\\xff\\xc3')");
    assert.equal(bytes.stdout, "a\ufffd\ufffd");
    await assert.rejects(sandbox.spawn([]), { code: "bad_request" });
    await assert.rejects(sandbox.spawn([""]), { code: "bad_request" });
    await assert.rejects(sandbox.spawn(["true"], { env: { "A=B": "" } }), { code: "bad_request" });
    await assert.rejects(sandbox.spawn(["true"], { cwd: "/none" }), { code: "bad_request" });
    await assert.rejects(sandbox.spawn(["true"], { user: "nobody-here" }), { code: "bad_request" });
    await assert.rejects(sandbox.spawn(["/no/such"]), { code: "exec_failed" });
    await using raw = await sandbox.spawn("printf 'a\\000\\377\\300b'");
    const parts: Uint8Array[] = [];
    for await (const chunk of raw.stdout) parts.push(chunk);
    assert.deepEqual([...Buffer.concat(parts)], [97, 0, 255, 192, 98], "bytes are bytes");
    const buffered = await sandbox.exec("printf 'a\\000\\377\\300b'");
    assert.equal(buffered.stdout, "a\0\ufffd\ufffdb", "text has U+FFFD for what is not UTF-8");
  });

  test("many commands at once, a quarter of them for nobody (npm run crowd: 200)", async () => {
    const crowd = { sandboxes: 2, execs: 12, bytes: 100_000 };
    assert.equal(await execCrowd(baked.tag, crowd, at()), 24);
  });

  test("a sandbox that ends tells its streams, and is refused afterwards", async () => {
    await using other = await Sandbox.create({ snapshotTag: baked.tag, ...at() });
    const process = await other.spawn("sleep 60");
    await other.kill();
    await assert.rejects(process.wait(), { code: "sandbox_ended" });
    await assert.rejects(other.spawn("true"), ({ code }: { code: string }) =>
      ["sandbox_ended", "sandbox_not_found"].includes(code),
    );
    const unknown = new Sandbox(daemon.client, { ...other.info, id: "sb-0-0" });
    await assert.rejects(unknown.spawn("true"), { code: "sandbox_not_found" });
  });
});
