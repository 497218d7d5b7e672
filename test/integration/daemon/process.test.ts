import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { Client } from "@forkd/sdk";
import { DaemonProcess, startProcess as startDaemon } from "../../helpers/daemon-process.ts";
import { eventually } from "../../helpers/eventually.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const token = "correct-horse-battery-staple";

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
  process.kill(third.pid, "SIGTERM");
  await third.daemon.ended;
});

test("the token file guards the daemon", async (context) => {
  await using tmp = await makeTmpDir("daemon");
  const path = join(tmp.path, "token");
  await writeFile(path, `${token}\n`);
  const data = join(tmp.path, "data");
  const { daemon, url, pid } = await startDaemon(context, data, "--token-file", path);
  await assert.rejects(new Client({ url, token: "" }).version(), { code: "unauthorized" });
  assert.equal((await new Client({ url, token }).version()).api, "v1");
  process.kill(pid, "SIGTERM");
  await daemon.ended;
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
