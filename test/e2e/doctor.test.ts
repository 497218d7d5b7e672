/** Doctor and cleanup beside a real daemon with a real sandbox. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { forkd } from "../helpers/cli.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";

interface Report {
  readonly name: string;
  readonly status: string;
  readonly detail: string;
}

describe("a host with a daemon", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;

  const doctor = async (token: string, ...only: readonly string[]) => {
    const flags = only.flatMap((name) => ["--only", name]);
    const at = { dataDir: data.path, daemon: { url: daemon.url, token } };
    const { code, stdout, stderr } = await forkd(["doctor", "--json", ...flags], at);
    assert.equal(stderr, "");
    const { checks }: { checks: readonly Report[] } = JSON.parse(stdout);
    return { code, of: new Map(checks.map((report) => [report.name, report])) };
  };

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("doctor", baked);
    daemon = await startDaemon(data.path);
    await daemon.client.createSandboxes({ body: { snapshot_tag: baked.tag, n: 1 } });
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  test("doctor asks it for its version, its room and its limits", async () => {
    const names = ["daemon", "port", "snapshot-dir", "disk-space", "ulimits"];
    const { code, of } = await doctor(daemon.token, ...names);
    assert.equal(code, 0);
    assert.equal(of.get("daemon")?.status, "pass");
    assert.match(of.get("port")?.detail ?? "", new RegExp(`pid ${daemon.process.pid} `));
    assert.match(of.get("snapshot-dir")?.detail ?? "", /, of the daemon$/);
    assert.match(of.get("disk-space")?.detail ?? "", /of the daemon$/);
  });

  test("doctor runs a guest to say which engine a parent gets", async () => {
    const { of } = await doctor(daemon.token, "guest-kernel", "engine");
    assert.equal(of.get("guest-kernel")?.status, "pass");
    assert.match(of.get("engine")?.detail ?? "", /^new parents: \w+ [\d.]+ with (kvm|tcg)/);
  });

  test("a wrong token is a failure, with what to set", async () => {
    const { code, of } = await doctor("not-the-token-of-this-daemon", "daemon");
    assert.equal(code, 1);
    assert.match(of.get("daemon")?.detail ?? "", /token/);
  });

  test("cleanup --yes leaves what lives alone", async () => {
    const at = { dataDir: data.path, daemon: { url: daemon.url, token: daemon.token } };
    const { code, stderr } = await forkd(["cleanup", "--yes"], at);
    assert.equal(code, 0, stderr);
    const [sandbox] = await daemon.client.listSandboxes();
    assert.equal(sandbox?.state, "running");
    const params = { id: sandbox.id };
    const body = { args: ["echo", "alive"] };
    assert.equal((await daemon.client.execSandbox({ params, body })).stdout, "alive\n");
    assert.ok(existsSync(`${data.path}/work/${sandbox.id}`));
  });
});
