import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Client } from "@forkd/sdk";
import { eventually } from "../../helpers/eventually.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";
import { runChild } from "../../runner/child.ts";
import { repoRoot } from "../../tidy/files.ts";

const program = join(repoRoot, "bin/forkd-controller");
const token = "correct-horse-battery-staple";

/** A running daemon: its lines so far, and its exit code once it has ended. */
class DaemonProcess {
  readonly stdout: string[] = [];
  readonly stderr: string[] = [];
  readonly ended: Promise<number | null>;

  constructor(args: readonly string[]) {
    const end = runChild([program, ...args], {
      cwd: repoRoot,
      env: { PATH: process.env["PATH"], HOME: process.env["HOME"] },
      deadlineMs: 20_000,
      onStdoutLine: (line) => this.stdout.push(line),
      onStderrLine: (line) => this.stderr.push(line),
    });
    this.ended = end.then(({ code }) => code);
  }

  /** Its address and pid, once it says that it listens. */
  async listening(): Promise<{ url: string; pid: number }> {
    return await eventually(
      () => {
        const line = this.stdout.find((each) => each.includes('"msg":"listening"'));
        assert.ok(line, this.stderr.join("\n"));
        return JSON.parse(line);
      },
      { timeoutMs: 10_000 },
    );
  }
}

/** Starts a daemon on a free port; it is stopped with the test. */
async function startDaemon(context: TestContext, dir: string, ...args: string[]) {
  const daemon = new DaemonProcess(["serve", "--data-dir", dir, "--bind", "127.0.0.1:0", ...args]);
  const { url, pid } = await daemon.listening();
  let hasEnded = false;
  void daemon.ended.then(() => {
    hasEnded = true;
  });
  context.after(async () => {
    if (!hasEnded) process.kill(pid, "SIGKILL");
    await daemon.ended;
  });
  return { daemon, url, pid };
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`the daemon serves until ${signal} and leaves with code 0`, async (context) => {
    await using tmp = await makeTmpDir("daemon");
    const { daemon, url, pid } = await startDaemon(context, tmp.path);
    assert.ok(daemon.stdout.includes(`listening on ${url}`));
    const client = new Client({ url });
    assert.deepEqual(await client.health(), { ok: true });
    assert.deepEqual([await client.listSandboxes(), await client.listSnapshots()], [[], []]);
    const spawn = client.createSandboxes({ body: { snapshot_tag: "none" } });
    await assert.rejects(spawn, { code: "snapshot_not_found", message: /not found$/ });
    process.kill(pid, signal);
    assert.equal(await daemon.ended, 0, daemon.stderr.join("\n"));
    const audit = await readFile(join(tmp.path, "audit.log"), "utf8");
    const lines = audit
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    assert.equal(lines.filter(({ method }) => method !== undefined).length, 4);
    const done = lines.filter(({ operation }) => operation !== undefined);
    assert.deepEqual(
      done.map(({ operation, outcome }) => [operation, outcome]),
      [["spawn", "snapshot_not_found"]],
    );
    await assert.rejects(client.health(), { code: "daemon_unreachable" });
  });
}

test("a restarted daemon takes over the same data directory; two at once may not", async (context) => {
  await using tmp = await makeTmpDir("daemon");
  const first = await startDaemon(context, tmp.path);
  const second = new DaemonProcess(["serve", "--data-dir", tmp.path, "--bind", "127.0.0.1:0"]);
  assert.equal(await second.ended, 1);
  assert.match(second.stderr.join("\n"), /^error: .*\nhint: /);
  process.kill(first.pid, "SIGTERM");
  await first.daemon.ended;
  const third = await startDaemon(context, tmp.path);
  assert.deepEqual(await new Client({ url: third.url }).health(), { ok: true });
});

test("the token file guards the daemon", async (context) => {
  await using tmp = await makeTmpDir("daemon");
  const path = join(tmp.path, "token");
  await writeFile(path, `${token}\n`);
  const { url } = await startDaemon(context, join(tmp.path, "data"), "--token-file", path);
  await assert.rejects(new Client({ url, token: "" }).version(), { code: "unauthorized" });
  assert.equal((await new Client({ url, token }).version()).api, "v1");
});

test("a taken port names who has it", async (context) => {
  await using tmp = await makeTmpDir("daemon");
  const owner = createServer().listen(0, "127.0.0.1");
  context.after(() => owner.close());
  await eventually(() => assert.ok(owner.listening));
  const address = owner.address();
  assert.ok(address !== null && typeof address === "object");
  const bind = `127.0.0.1:${address.port}`;
  const daemon = new DaemonProcess(["serve", "--data-dir", tmp.path, "--bind", bind]);
  assert.equal(await daemon.ended, 1);
  const said = daemon.stderr.join("\n");
  assert.match(said, new RegExp(`process ${process.pid} .*listens on ${bind} already`));
});

test("a daemon that cannot start says why and with which code", async () => {
  await using tmp = await makeTmpDir("daemon");
  const weak = join(tmp.path, "token");
  await writeFile(weak, "CHANGE_ME");
  await mkdir(join(tmp.path, "dir"));
  const cases: readonly [string[], number, RegExp][] = [
    [["--help"], 0, /^$/],
    [["serve", "--bind", "0.0.0.0:0"], 2, /there is no token/],
    [["serve", "--token-file", weak], 2, /is a placeholder/],
    [["serve", "--token-file", join(tmp.path, "none")], 2, /cannot read the token/],
    [["serve", "--bind", "192.0.2.1:0", "--token-file", weak], 2, /in the clear/],
    [["serve", "--audit-log", join(tmp.path, "dir")], 1, /EISDIR/],
  ];
  for (const [args, code, said] of cases) {
    const rest = args[0] === "serve" ? ["--data-dir", join(tmp.path, "data")] : [];
    const daemon = new DaemonProcess([...args, ...rest]);
    assert.equal(await daemon.ended, code, args.join(" "));
    assert.match(daemon.stderr.join("\n"), said);
  }
});
