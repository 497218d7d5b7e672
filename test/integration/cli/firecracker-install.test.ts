import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { installFirecracker } from "@forkd/host/fork/install-firecracker.ts";
import {
  findInstalledFirecracker,
  firecrackerFiles,
  locateFirecracker,
} from "@forkd/host/store/firecracker.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { forkd } from "../../helpers/cli.ts";
import { FakeFirecracker } from "../../helpers/fake-firecracker.ts";
import { type TarMember, writeTar } from "../../helpers/tar-writer.ts";

const skip = skipWithout("compiler");
const sha256 = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");

describe("forkd firecracker install", { skip }, () => {
  let dir: string;
  let binary: Buffer;
  let jailer: Buffer;
  let releases = 0;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "forkd-fci-"));
    const fake = await FakeFirecracker.make(join(dir, "fake"));
    binary = await readFile(fake.binary);
    jailer = await readFile(fake.jailer);
  });
  after(() => rm(dir, { recursive: true, force: true }));

  const program = (name: string, data: Uint8Array): TarMember => ({ name, data, mode: 0o755 });
  const release = (): TarMember[] => [
    { name: "release-v1.16.1-x86_64/", type: "dir" },
    program("release-v1.16.1-x86_64/firecracker-v1.16.1-x86_64", binary),
    program("release-v1.16.1-x86_64/jailer-v1.16.1-x86_64", jailer),
    program("release-v1.16.1-x86_64/firecracker-v1.16.1-x86_64.debug", Buffer.alloc(100)),
    program("release-v1.16.1-x86_64/seccompiler-bin-v1.16.1-x86_64", Buffer.alloc(100)),
  ];
  const put = async (data: Uint8Array) => {
    releases += 1;
    const from = join(dir, `release-${releases}`);
    await writeFile(from, data);
    return { from, sha256: sha256(data) };
  };
  const paths = (name: string) => ({ dataDir: join(dir, name) });
  const install = (name: string, source: { from: string; sha256: string }) =>
    installFirecracker({ paths: paths(name), source, jailer: null, progress: () => undefined });
  /** Fails, and leaves the data directory without anything. */
  const refuses = async (data: Uint8Array, expected: object): Promise<void> => {
    const name = `refused-${releases}`;
    await assert.rejects(install(name, await put(data)), expected);
    const left = await readdir(join(dir, name, "firecracker"), { recursive: true });
    assert.deepEqual(left, [".staging"]);
    assert.equal(await findInstalledFirecracker(paths(name)), undefined);
  };

  test("takes both programs of a release's archive, and is what is found then", async () => {
    const source = await put(gzipSync(writeTar(release())));
    const installed = await install("good", source);
    assert.match(installed.id, /^1\.16\.1-[0-9a-f]{12}$/);
    assert.deepEqual(await readFile(installed.firecracker), binary);
    assert.deepEqual(await readFile(installed.jailer ?? assert.fail()), jailer);
    const { firecracker } = (await findInstalledFirecracker(paths("good"))) ?? assert.fail();
    assert.equal(firecracker, installed.firecracker);
    assert.equal((await stat(firecracker)).mode & 0o777, 0o755);
    const record = JSON.parse(
      await readFile(firecrackerFiles.record(join(firecracker, "..")), "utf8"),
    );
    assert.equal(record.origin_sha256, source.sha256);
    assert.equal(record.sha256.firecracker, sha256(binary));
    const names = await readdir(join(dir, "good/firecracker"));
    assert.deepEqual(names.sort(), [".staging", installed.id, "default"].sort());
    assert.deepEqual(await readdir(join(dir, "good/firecracker/.staging")), []);
  });

  test("again is the same release, and a plain tar will do", async () => {
    const first = await install("twice", await put(gzipSync(writeTar(release()))));
    const again = await install("twice", await put(writeTar(release())));
    assert.equal(again.id, first.id);
    assert.equal((await locateFirecracker(again.firecracker))?.jailer, again.jailer);
  });

  test("takes programs that are given one by one", async () => {
    const installed = await installFirecracker({
      paths: paths("loose"),
      source: await put(binary),
      jailer: await put(jailer),
      progress: () => undefined,
    });
    assert.deepEqual(await readFile(installed.jailer ?? assert.fail()), jailer);
    const alone = await install("alone", await put(binary));
    assert.equal(alone.jailer, null);
  });

  test("takes what an http server has, and says when it has not", async (t) => {
    const data = gzipSync(writeTar(release()));
    const server = createServer((request, response) => {
      if (request.url === "/release.tgz") response.end(data);
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    t.after(() => server.close());
    const address = server.address();
    assert.ok(typeof address === "object" && address !== null);
    const at = (path: string): string => `http://127.0.0.1:${address.port}${path}`;
    const source = { from: at("/release.tgz"), sha256: sha256(data) };
    assert.match((await install("http", source)).id, /^1\.16\.1-/);
    const absent = { from: at("/none"), sha256: sha256(data) };
    await assert.rejects(install("http", absent), {
      code: "registry_unreachable",
      message: /answered 404/,
    });
    server.close();
    server.closeAllConnections();
    await assert.rejects(install("http", source), { code: "registry_unreachable" });
    assert.notEqual(await findInstalledFirecracker(paths("http")), undefined);
  });

  test("what is not what its hash says is refused before it is looked into", async () => {
    const { from } = await put(gzipSync(writeTar(release())));
    const wrong = { from, sha256: "0".repeat(64) };
    await assert.rejects(install("hash", wrong), {
      code: "image_invalid",
      message: /hashes to [0-9a-f]{64}, not to 0{64}/,
    });
    assert.equal(existsSync(join(dir, "hash/firecracker/default")), false);
  });

  test("archives that are hostile or damaged are refused", async () => {
    const named = (name: string): TarMember => program(name, binary);
    const invalid = (message: RegExp) => ({ code: "image_invalid", message });
    await refuses(Buffer.from("no archive at all"), invalid(/no archive of a release/));
    await refuses(gzipSync(writeTar(release())).subarray(0, 5000), invalid(/no archive/));
    await refuses(writeTar(release()).subarray(0, 20_000), invalid(/cut off/));
    await refuses(writeTar([named("a/other")]), invalid(/holds no program firecracker/));
    await refuses(writeTar([named("a/firecracker"), named("b/firecracker")]), invalid(/twice/));
    const link: TarMember = { name: "firecracker", type: "symlink", linkTo: "/bin/sh" };
    await refuses(writeTar([link]), invalid(/holds no program/));
    const hard: TarMember = { name: "firecracker", type: "hardlink", linkTo: "/bin/sh" };
    await refuses(writeTar([hard]), invalid(/holds no program/));
    const script = program("firecracker", Buffer.from("#!/bin/sh\necho Firecracker v1.16.1\n"));
    await refuses(writeTar([script]), invalid(/no program for x86_64/));
    const damaged = writeTar(release());
    damaged[600] = (damaged[600] ?? 0) ^ 1;
    await refuses(damaged, invalid(/checksum/));
  });

  test("a name that leads out of the archive leads nowhere", async () => {
    const members = ["../../../../tmp/firecracker", "/etc/jailer"].map((name, index) =>
      program(name, index === 0 ? binary : jailer),
    );
    const installed = await install("paths", await put(writeTar(members)));
    assert.ok(installed.firecracker.startsWith(join(dir, "paths/firecracker/")));
    assert.equal(existsSync("/etc/jailer"), false);
  });

  test("a program that is none, though it looks like one, is refused", async () => {
    const broken = Buffer.from(binary);
    broken.fill(0, 64);
    await refuses(writeTar([program("firecracker", broken)]), {
      code: "image_invalid",
      message: /does not say its version/,
    });
    const source = { from: join(dir, "no-such-file"), sha256: "0".repeat(64) };
    await assert.rejects(install("nowhere", source), { code: "image_not_found" });
  });

  test("the command prints what it installed, and refuses what is no hash", async () => {
    const { from, sha256: hash } = await put(gzipSync(writeTar(release())));
    const options = { dataDir: join(dir, "cli") };
    const good = await forkd(["firecracker", "install", "--from", from, "--sha256", hash], options);
    assert.equal(good.code, 0, good.stderr);
    assert.match(good.stdout, /^1\.16\.1-[0-9a-f]{12}\n$/);
    const bad = await forkd(["firecracker", "install", "--from", from, "--sha256", "x"], options);
    assert.equal(bad.code, 2);
    assert.match(bad.stderr, /64 hex digits/);
  });
});
