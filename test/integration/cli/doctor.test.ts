import assert from "node:assert/strict";
import { once } from "node:events";
import { chmod, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { skipWithout } from "../../helpers/capability.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";
import { forkd } from "./forkd.ts";

const skip = skipWithout("root");

test("doctor looks at this host, and exits with 1 while a check fails", async () => {
  await using dir = await makeTmpDir("doctor");
  const env = { FORKD_DATA_DIR: dir.path };
  const end = await forkd(["doctor", "--json"], { env });
  const report = JSON.parse(end.out);
  assert.equal(end.code, 1);
  assert.equal(report.ok, false);
  const kernel = report.checks.find(({ name }: { name: string }) => name === "guest-kernel");
  assert.deepEqual(
    { ...kernel, detail: "" },
    {
      name: "guest-kernel",
      family: "engines",
      status: "fail",
      detail: "",
      hint: "forkd kernel install",
      fixed: null,
    },
  );
  for (const { name, status, hint } of report.checks) {
    if (status === "warn" || status === "fail") assert.ok(hint, name);
  }
  const text = await forkd(["doctor"], { env });
  assert.match(text.out, /^✗ guest-kernel .*\n {4}forkd kernel install$/m);
  assert.match(text.out, /^pass=\d+ warn=\d+ fail=\d+ skip=\d+$/m);
});

test("doctor --only runs what was named, and warnings do not fail it", async () => {
  await using dir = await makeTmpDir("doctor");
  const none = join(dir.path, "none");
  const end = await forkd(["doctor", "--only", "data-dir"], { env: { FORKD_DATA_DIR: none } });
  assert.equal(end.code, 0);
  assert.match(end.out, /^! data-dir {2}.*not there yet$/m);
  assert.match(end.out, /^pass=0 warn=1 fail=0 skip=0$/m);
  const strange = await forkd(["doctor", "--only", "moon"]);
  assert.equal(strange.code, 1);
  assert.match(strange.err, /there is no check "moon"[\s\S]*platform, kernel/);
});

test("doctor --fix mends, says so, and then all is well", { skip }, async () => {
  await using dir = await makeTmpDir("doctor");
  const token = join(dir.path, "token");
  await writeFile(token, "0123456789abcdef");
  await chmod(token, 0o644);
  const env = { FORKD_DATA_DIR: join(dir.path, "data"), FORKD_TOKEN_FILE: token };
  const args = ["doctor", "--only", "token", "--only", "data-dir"];
  assert.equal((await forkd(args, { env })).code, 1);
  const end = await forkd([...args, "--fix"], { env });
  assert.equal(end.code, 0, end.err);
  assert.match(end.out, /mended: .*token is its owner's only/);
  assert.match(end.out, /mended: made .*data/);
  assert.equal((await stat(token)).mode & 0o777, 0o600);
});

test("a daemon that cannot tell of its host is broken, and not of its own version's age", async () => {
  const ownVersion = (await forkd(["--version"])).out.split(" ").at(-1) ?? "";
  for (const [version, status, detail] of [
    [ownVersion, "fail", /500/],
    ["0.5.2", "warn", /runs 0\.5\.2, this is /],
  ] as const) {
    const server = createServer((request, response) => {
      response.statusCode = request.url === "/version" ? 200 : 500;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ version, api: "v1" }));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    // A server that listens on TCP has such an address.
    const { port } = server.address() as AddressInfo;
    const env = { FORKD_URL: `http://127.0.0.1:${port}` };
    const end = await forkd(["doctor", "--only", "daemon", "--json"], { env });
    server.close();
    const [report] = JSON.parse(end.out).checks;
    assert.equal(report.status, status, report.detail);
    assert.match(report.detail, detail);
  }
});
