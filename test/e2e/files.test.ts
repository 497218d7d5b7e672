/** Files of a real guest through REST and the SDK: what a path means, and how a transfer ends. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { lstat, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { ErrorCode } from "@forkd/api";
import { ForkdError, Sandbox, type SandboxFiles } from "@forkd/sdk";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { forkd } from "../helpers/cli.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";
import { makeTmpDir } from "../helpers/tmp.ts";

/** In CI little, because an emulated guest is slow; `npm run test:files` takes 1 GiB. */
const largeMib = Number(process.env["FORKD_TEST_FILE_MIB"] ?? 192);
/** Credit, sockets and what a collector has not collected yet; less than the file. */
const growthMaxMib = 128;

function rssMib(pid: number): number {
  const text = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(text)?.[1]) / 1024;
}

const fails = (work: Promise<unknown>, code: ErrorCode): Promise<void> =>
  assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof ForkdError);
    assert.equal(error.code, code, error.message);
    return true;
  });

describe("files of a sandbox", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;
  let sandbox: Sandbox;
  let files: SandboxFiles;

  before(async () => {
    // A GiB does not fit into the memory of a guest that writes to it.
    baked = await ensureBaked(largeMib > 200 ? "large" : "python");
    data = await makeDataDir("files", baked);
    daemon = await startDaemon(data.path);
    sandbox = await Sandbox.create({ snapshotTag: baked.tag, client: daemon.client });
    files = sandbox.files;
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });
  const shell = async (command: string): Promise<string> => (await sandbox.exec(command)).stdout;

  test("what is written is read, with its mode, and replaced as a whole", async () => {
    const info = await files.write("/tmp/a", "ü\n", { mode: 0o750 });
    assert.deepEqual([info.type, info.mode, info.size_bytes, info.name], ["file", "0750", 3, "a"]);
    assert.equal(await files.readText("/tmp/a"), "ü\n");
    assert.equal((await files.write("/tmp/a", "two")).mode, "0750");
    assert.equal(await shell("stat -c %a:%u /tmp/a; cat /tmp/a"), "750:0\ntwo");
    await fails(files.write("/tmp/a", "x", { exclusive: true }), "file_exists");
    await fails(files.write("/tmp/none/a", "x"), "file_not_found");
    await files.write("/tmp/none/a", "x", { parents: true });
    await files.write("/tmp/empty", "");
    assert.equal(await files.readText("/tmp/empty"), "");
  });

  test("ranges", async () => {
    await files.write("/tmp/digits", "0123456789");
    const part = await files.read("/tmp/digits", { start: 2, end: 5 });
    assert.deepEqual([part.sizeBytes, await part.text()], [3, "234"]);
    assert.equal(await files.readText("/tmp/digits", { start: 8 }), "89");
    await fails(files.read("/tmp/digits", { start: 10 }), "range_not_satisfiable");
    const last = await get("/tmp/digits", { range: "bytes=-3" });
    assert.deepEqual([last.status, await last.text()], [206, "789"]);
    assert.equal(last.headers.get("content-range"), "bytes 7-9/10");
    const several = await get("/tmp/digits", { range: "bytes=0-1,3-4" });
    assert.deepEqual([several.status, await several.text()], [200, "0123456789"]);
  });

  const get = (path: string, headers: Record<string, string>): Promise<Response> =>
    fetch(`${daemon.url}/v1/sandboxes/${sandbox.id}/files?path=${encodeURIComponent(path)}`, {
      headers: { authorization: `Bearer ${daemon.token}`, ...headers },
    });

  test("what a path means", async () => {
    await shell("cd /tmp && mkdir -p t/d && echo in > t/f && ln -s f t/l && ln -s no t/lost");
    await shell("mkfifo /tmp/t/p; ln -s ../../../../etc/hostname /tmp/t/up");
    assert.equal(await files.readText("/tmp/t/l"), "in\n");
    assert.equal((await files.stat("/tmp/t/l")).target, "f");
    assert.equal((await files.stat("/tmp/t/l", { follow: true })).type, "file");
    assert.equal(await files.readText("/tmp/t/up"), await shell("cat /etc/hostname"));
    await files.write("/tmp/t/l", "through");
    assert.equal(await shell("cat /tmp/t/f; readlink /tmp/t/l"), "throughf\n");
    await fails(files.write("/tmp/t/lost", "x"), "file_not_found");
    await fails(files.read("/tmp/t"), "is_a_directory");
    await fails(files.write("/tmp/t", "x"), "is_a_directory");
    await fails(files.read("/tmp/t/p"), "not_a_file");
    await fails(files.read("/dev/zero"), "not_a_file");
    await fails(files.read("/tmp/t/f/g"), "not_a_directory");
    await fails(files.read("/tmp/a\0b"), "bad_request");
    await fails(files.read(""), "bad_request");
    await fails(files.read(`/${"a".repeat(4095)}`), "bad_request");
    await fails(files.read("/tmp/nothing"), "file_not_found");
    await fails(files.write("/proc/sys/kernel/hostname", "x"), "not_a_file");
    assert.match(await files.readText("/proc/self/status"), /^Name:/);
    await files.write("relative", "r");
    assert.equal(await shell("cat relative"), "r");
  });

  test("names are bytes", async () => {
    const name = Uint8Array.of(0x2f, 0x74, 0x6d, 0x70, 0x2f, 0x66, 0xff, 0x0a);
    await files.write(name, "bytes");
    assert.equal(await files.readText(name), "bytes");
    const { entries } = await files.list("/tmp");
    const entry = entries.find(({ name_b64 }) => name_b64 !== undefined);
    assert.deepEqual([entry?.name, entry?.name_b64], ["f\ufffd\n", "Zv8K"]);
    await files.remove(name);
    await fails(files.stat(name), "file_not_found");
    const encoded = `${daemon.url}/v1/sandboxes/${sandbox.id}/files?path=/tmp/f%ff`;
    const refused = await fetch(encoded, { headers: { authorization: `Bearer ${daemon.token}` } });
    assert.equal(refused.status, 400);
    assert.equal(((await refused.json()) as { code: string }).code, "bad_request");
  });

  test("rights are those of a user", async () => {
    await files.write("/tmp/mine", "x", { mode: 0o600 });
    const user = "12345:12345";
    await fails(files.read("/tmp/mine", { user }), "file_denied");
    await fails(files.write("/tmp/mine", "y", { user }), "file_denied");
    assert.equal((await files.write("/tmp/theirs", "y", { user })).uid, 12_345);
    await files.write("/tmp/theirs", "by root");
    assert.equal((await files.stat("/tmp/theirs")).uid, 12_345);
    await fails(files.read("/tmp/mine", { user: "nobody-here" }), "bad_request");
  });

  test("directories", async () => {
    await files.mkdir("/tmp/m/n", { parents: true, mode: 0o700 });
    await fails(files.mkdir("/tmp/m"), "file_exists");
    await files.write("/tmp/m/n/f", "x");
    assert.deepEqual(
      (await files.list("/tmp/m")).entries.map(({ name, type, mode }) => [name, type, mode]),
      [["n", "directory", "0700"]],
    );
    await fails(files.remove("/tmp/m"), "directory_not_empty");
    await files.rename("/tmp/m", "/tmp/moved");
    await fails(files.list("/tmp/m"), "file_not_found");
    await files.remove("/tmp/moved", { recursive: true });
    await fails(files.list("/tmp/moved"), "file_not_found");
    await fails(files.remove("/", { recursive: true }), "file_denied");
  });

  test("an upload that is cut changes nothing and leaves nothing", async () => {
    await files.write("/tmp/kept", "old");
    const half = async function* (): AsyncGenerator<Uint8Array> {
      yield randomBytes(300_000);
      throw new Error("the source failed");
    };
    await assert.rejects(files.write("/tmp/kept", half()), /the source failed/);
    const gone = new AbortController();
    const endless = async function* (): AsyncGenerator<Uint8Array> {
      for (let n = 0; ; n += 1) {
        if (n === 20) setTimeout(() => gone.abort(new Error("no more")));
        yield randomBytes(65_536);
      }
    };
    await assert.rejects(files.write("/tmp/kept", endless(), { signal: gone.signal }), /no more/);
    await eventually(async () => {
      assert.equal(await shell("ls -A /tmp | grep -c forkd-"), "0\n");
    });
    assert.equal(await files.readText("/tmp/kept"), "old");
  });

  test("a large file takes little of the daemon's memory, both ways", async (context) => {
    const piece = randomBytes(1024 * 1024);
    const sent = createHash("sha256");
    const source = async function* (): AsyncGenerator<Uint8Array> {
      for (let n = 0; n < largeMib; n += 1) {
        piece.writeUInt32LE(n);
        sent.update(piece);
        yield Uint8Array.from(piece);
      }
    };
    const { pid } = daemon.process;
    assert.ok(pid !== undefined);
    const before = rssMib(pid);
    let most = before;
    const watch = setInterval(() => {
      most = Math.max(most, rssMib(pid));
    }, 50);
    await files.write("/tmp/large", source());
    const got = createHash("sha256");
    for await (const chunk of await files.read("/tmp/large")) got.update(chunk);
    clearInterval(watch);
    assert.equal(got.digest("hex"), sent.digest("hex"));
    context.diagnostic(`${Math.round(most - before)} MiB more for ${largeMib} MiB`);
    assert.ok(most - before < growthMaxMib, `${most - before} MiB more for ${largeMib} MiB`);
    await files.remove("/tmp/large");
  });

  test("forkd cp copies files and trees, in both directions", async () => {
    await using local = await makeTmpDir("cp");
    const run = (...args: string[]) => forkd(["cp", ...args], { dataDir: data.path, daemon });
    const there = `${sandbox.id}:/tmp/cp`;
    await mkdir(join(local.path, "src/sub"), { recursive: true });
    await writeFile(join(local.path, "src/sub/f"), "one", { mode: 0o640 });
    await symlink("sub/f", join(local.path, "src/inner"));
    await symlink("src/sub/f", join(local.path, "named"));
    assert.equal((await run(join(local.path, "src"), there)).code, 1);
    const up = await run("-r", join(local.path, "src"), there);
    assert.equal(up.code, 0, up.stderr);
    assert.match(up.stderr, /left out .*inner/);
    assert.equal((await run(join(local.path, "named"), there)).code, 0);
    assert.equal(await shell("cat /tmp/cp/named; stat -c %F /tmp/cp/named"), "oneregular file\n");
    assert.equal(await shell("cat /tmp/cp/sub/f; stat -c %a /tmp/cp/sub/f"), "one640\n");
    await shell("ln -s /etc/passwd /tmp/cp/link");
    const down = await run("-r", there, join(local.path, "back"));
    assert.equal(down.code, 0, down.stderr);
    assert.match(down.stderr, /left out .*link/);
    assert.equal(await readFile(join(local.path, "back/sub/f"), "utf8"), "one");
    assert.deepEqual((await readdir(join(local.path, "back"))).sort(), ["named", "sub"]);
    await writeFile(join(local.path, "victim"), "untouched");
    await symlink("victim", join(local.path, "trap"));
    assert.equal((await run(`${there}/named`, join(local.path, "trap"))).code, 0);
    assert.equal(await readFile(join(local.path, "victim"), "utf8"), "untouched");
    assert.equal((await lstat(join(local.path, "trap"))).isSymbolicLink(), false);
    // A link of the guest that is named leads only to what the guest has.
    await shell("ln -sf sub/f /tmp/cp/inside");
    assert.equal((await run(`${there}/inside`, join(local.path, "got"))).code, 0);
    assert.equal(await readFile(join(local.path, "got"), "utf8"), "one");
    const out = await run(`${there}/sub/f`, "-");
    assert.deepEqual([out.code, out.stdout], [0, "one"], out.stderr);
    assert.equal((await run("a", "b")).code, 2);
  });

  test("a reader that stops ends the guest's side", async () => {
    await shell("truncate -s 300M /tmp/large");
    for (let n = 0; n < 12; n += 1) {
      const download = await files.read("/tmp/large");
      for await (const chunk of download) {
        assert.ok(chunk.byteLength > 0);
        break;
      }
    }
    await eventually(async () => {
      assert.equal(await shell("cat /proc/[0-9]*/cmdline | grep -ac '[-]-file'"), "0\n");
    });
    await shell("rm /tmp/large");
  });
});
