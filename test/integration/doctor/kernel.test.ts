import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { missing } from "../../helpers/capabilities.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { makeDoctorHost, saying } from "../../helpers/doctor-host.ts";

/** Checks against the real kernel: mounts, namespaces and ports of the test's own. */

const skip = skipWithout("root");

function run(...argv: readonly string[]): void {
  const [program = "", ...args] = argv;
  const { status, stderr } = spawnSync(program, args, { encoding: "utf8" });
  assert.equal(status, 0, `${argv.join(" ")}: ${stderr}`);
}

/** Mounted until its scope ends. */
function mount(target: string, ...options: readonly string[]): Disposable {
  run("mount", ...options, target);
  return { [Symbol.dispose]: () => void spawnSync("umount", ["-l", target]) };
}

test("memory for images that is small is found, and its hint makes it larger", {
  skip,
}, async () => {
  await using host = await makeDoctorHost();
  const dir = join(host.root, "dev/shm");
  assert.match((await host.look("shm")).detail, /is missing/);
  await mkdir(dir);
  assert.match((await host.look("shm")).detail, /no tmpfs/);
  using _ = mount(dir, "-t", "tmpfs", "-o", "size=8m", "tmpfs");
  const small = await host.look("shm");
  assert.equal(small.status, "warn");
  assert.match(small.detail, /8 MiB are free/);
  host.paste(small.hint ?? "");
  assert.equal((await host.look("shm")).status, "pass");
});

test("a namespace that lives counts, and needs forwarding and a rule", { skip }, async () => {
  await using host = await makeDoctorHost();
  assert.equal((await host.look("netns")).status, "skip");
  await host.write("netns/forkd-child-1", "");
  using _ = mount(join(host.root, "netns/forkd-child-1"), "--bind", "/proc/self/ns/net");
  const unknown = await host.look("netns");
  assert.equal(unknown.status, "warn");
  assert.match(unknown.detail, /1 are provisioned for children, 0 .* 1 are known to nobody/);
  await host.write("pool/free/forkd-child-1", "{}");
  assert.equal((await host.look("netns")).status, "pass");
  assert.equal((await host.look("netns-stale")).status, "pass");
  await host.write("proc/sys/net/ipv4/ip_forward", "0\n");
  const off = await host.look("ip_forward");
  assert.equal(off.status, "fail");
  host.paste(off.hint ?? "");
  assert.equal((await host.look("ip_forward")).status, "pass");
  assert.match((await host.look("masquerade")).detail, /no rule masquerades/);
  await host.write("bin/nft", "#!/bin/sh\necho 'ip saddr 10.43.0.0/16 masquerade'\n", 0o755);
  assert.equal((await host.look("masquerade")).status, "pass");
});

test("a stranger on the daemon's port is named; a daemon is not held against itself", async () => {
  await using host = await makeDoctorHost();
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const daemonUrl = `http://127.0.0.1:${address.port}`;
  const taken = await host.look("port", { daemonUrl });
  assert.equal(taken.status, "fail");
  assert.match(taken.detail, new RegExp(`pid ${process.pid} .* has port ${address.port}`));
  const refused = saying({ kind: "refused", reason: "no token" });
  assert.equal((await host.look("port", { daemonUrl, ...refused })).status, "pass");
  await new Promise((resolve) => server.close(resolve));
  const script = `require("node:net").createServer()
    .listen(${address.port}, "127.0.0.1", () => console.log());`;
  await host.write("forkd-controller.cjs", script);
  const deaf = spawn(process.execPath, [join(host.root, "forkd-controller.cjs")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(deaf.stdout, "data");
  const found = await host.look("port", { daemonUrl });
  deaf.kill();
  await once(deaf, "exit");
  assert.equal(found.status, "warn");
  assert.equal(found.hint, `export FORKD_URL=https://127.0.0.1:${address.port}`);
  assert.match((await host.look("port", { daemonUrl })).detail, /is free/);
});

const withoutOpenssl = missing({ programs: ["openssl"] });

test("a certificate that ends soon is found", { skip: withoutOpenssl }, async () => {
  await using host = await makeDoctorHost();
  const path = join(host.root, "etc/own.pem");
  const certificate = async (days: number): Promise<string> => {
    const files = ["-keyout", "/dev/null", "-out", path];
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    run("openssl", "req", "-x509", "-subj", "/CN=x", "-days", String(days), ...key, ...files);
    return (await host.look("certificate")).status;
  };
  assert.equal(await certificate(90), "skip");
  assert.equal((await host.look("certificate", { tlsCertFile: path })).status, "pass");
  await host.write("etc/default", `# TLS\nFORKD_TLS_CERT="${path}"\n`);
  assert.equal(await certificate(90), "pass");
  assert.equal(await certificate(5), "warn");
  await host.remove("etc/own.pem");
  assert.match((await host.look("certificate")).detail, /own\.pem is missing/);
});

test("limits are tried for real, and leave nothing", { skip }, async () => {
  await using host = await makeDoctorHost();
  const found = await host.look("cgroup");
  // Which of them a host enforces is its own business; that there is an answer is ours.
  assert.notEqual(found.status, "skip");
  assert.equal((await host.look("leaks")).status, "pass");
  await host.remove("data");
  assert.equal((await host.look("cgroup")).status, "skip");
});
