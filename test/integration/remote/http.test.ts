import assert from "node:assert/strict";
import { readdir, readFile, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { transferRetry } from "@forkd/host/fork/transfer.ts";
import { httpObject } from "@forkd/host/remote/http.ts";
import { missing } from "../../helpers/capabilities.ts";
import { FaultProxy } from "../../helpers/fault-proxy.ts";
import { ForwardProxy } from "../../helpers/forward-proxy.ts";
import { startNginx, type TestNginx } from "../../helpers/nginx.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";
import { sha256Of, Transfers } from "../../helpers/transfers.ts";

const skip = missing({ programs: ["nginx"] });
const size = 3 * 1024 * 1024;
const half = size / 2;

describe("packs at an HTTP server (nginx)", { skip }, () => {
  let tmp: TmpDir;
  let nginx: TestNginx;
  let proxy: FaultProxy;
  let transfers: Transfers;
  let pack: { path: string; bytes: Buffer };

  before(async () => {
    tmp = await makeTmpDir("http");
    nginx = await startNginx(tmp.path);
  });
  after(async () => {
    await nginx[Symbol.asyncDispose]();
    await tmp[Symbol.asyncDispose]();
  });
  beforeEach(async (context) => {
    transfers = await Transfers.in(tmp.path);
    pack = await transfers.makeFile("pack", size);
    await writeFile(join(nginx.root, "pack"), pack.bytes);
    proxy = await FaultProxy.startFor(context, { socketPath: nginx.socket });
  });

  const url = (): string => `${proxy.origin}/pack?signature=secret`;
  const gets = () => proxy.seen.filter(({ method }) => method === "GET");
  const ranges = (): string[] => gets().map(({ headers }) => String(headers.range ?? "all"));

  test("come whole, and leave nothing behind", async () => {
    const { report, bytes } = await transfers.pull(url());
    assert.deepEqual(bytes, pack.bytes);
    assert.equal(report.sha256, sha256Of(pack.bytes));
    assert.equal(report.size_bytes, size);
    assert.equal(report.verified, false);
    assert.ok(!JSON.stringify([report, transfers.notices]).includes("secret"));
    assert.deepEqual(await transfers.partials(), []);
  });

  test("go on where the connection was cut, twice, and ask for the same version", async () => {
    proxy.failNext({ cutAfter: 1_000_000 });
    proxy.failNext({ cutAfter: 500_000 });
    const { bytes } = await transfers.pull(url(), { sha256: sha256Of(pack.bytes) });
    assert.deepEqual(bytes, pack.bytes);
    const [first, second, third] = gets();
    assert.equal(first?.headers.range, undefined);
    for (const later of [second, third]) {
      assert.match(later?.headers.range ?? "", /^bytes=[1-9]\d*-$/);
      assert.match(String(later?.headers["if-range"]), /^"/);
    }
    assert.equal(gets().length, 3);
  });

  test("go on in another run, also one that only unpacks", async () => {
    proxy.failNext({ cutAfter: half });
    for (let n = 0; n < 10; n += 1) proxy.failNext({ status: 404 });
    await assert.rejects(transfers.pull(url()), { code: "remote_not_found" });
    const kept = await transfers.partials();
    assert.equal(kept.length, 1);
    proxy.forgetFaults();
    const refusal = new Error("it is there already");
    await assert.rejects(transfers.pull(url(), { unpack: () => Promise.reject(refusal) }), refusal);
    const { report, bytes } = await transfers.pull(url());
    assert.deepEqual(bytes, pack.bytes);
    assert.equal(report.resumed_bytes, size);
    assert.match(ranges().at(-1) ?? "", new RegExp(`^bytes=${size}-$`));
    assert.deepEqual(await transfers.partials(), []);
  });

  test("begin anew when the object is another by now", async () => {
    proxy.failNext({ cutAfter: half });
    proxy.failNext({ status: 404 });
    await assert.rejects(transfers.pull(url()), { code: "remote_not_found" });
    const other = await transfers.makeFile("other", size);
    await writeFile(join(nginx.root, "pack"), other.bytes);
    await utimes(join(nginx.root, "pack"), 1, 1);
    const { report, bytes } = await transfers.pull(url());
    assert.deepEqual(bytes, other.bytes);
    assert.equal(report.resumed_bytes, 0);
  });

  test("are not put together when a server sends a part of another version", async () => {
    proxy.failNext({ cutAfter: half });
    proxy.failNext({ headers: { etag: '"another"' } });
    const { bytes } = await transfers.pull(url());
    assert.deepEqual(bytes, pack.bytes);
    assert.deepEqual(
      ranges().map((range) => range === "all"),
      [true, false, true],
    );
  });

  test("without a version begin anew after a cut, unless their hash is known", async () => {
    const nameless = { headers: { etag: "" } };
    proxy.failNext({ ...nameless, cutAfter: half });
    proxy.failNext(nameless);
    assert.deepEqual((await transfers.pull(url())).bytes, pack.bytes);
    assert.deepEqual(ranges(), ["all", "all"]);
    proxy.failNext({ ...nameless, cutAfter: half });
    proxy.failNext(nameless);
    await transfers.pull(url(), { sha256: sha256Of(pack.bytes) });
    assert.match(ranges().at(-1) ?? "", /^bytes=\d+-$/);
  });

  test("wait as long as a busy server asks, and try again what may pass", async () => {
    proxy.failNext({ status: 429, headers: { "retry-after": "1" } });
    proxy.failNext({ status: 500 });
    proxy.failNext({ truncateTo: 1000 });
    const began = performance.now();
    await assert.rejects(transfers.pull(url(), { sha256: sha256Of(pack.bytes) }), {
      code: "remote_corrupt",
    });
    // A wait that was asked for is a lower bound, whatever the machine does meanwhile.
    assert.ok(performance.now() - began >= 1000);
    assert.equal(gets().length, 3);
    assert.match(transfers.notices.join("\n"), /429.*trying again in 1 s[\s\S]*500.*trying again/);
    const { bytes } = await transfers.pull(url(), { sha256: sha256Of(pack.bytes) });
    assert.deepEqual(bytes, pack.bytes);
  });

  test("are refused when they are not what was named, and nothing is unpacked", async () => {
    const sha256 = sha256Of(pack.bytes);
    proxy.failNext({ flipAt: half });
    await assert.rejects(transfers.pull(url(), { sha256 }), { code: "remote_corrupt" });
    assert.deepEqual(await transfers.partials(), []);
  });

  test("that went wrong in an earlier part are fetched once more as a whole", async () => {
    const sha256 = sha256Of(pack.bytes);
    proxy.failNext({ cutAfter: half, flipAt: 10 });
    const { bytes } = await transfers.pull(url(), { sha256 });
    assert.deepEqual(bytes, pack.bytes);
    assert.deepEqual(
      ranges().map((range) => range === "all"),
      [true, false, true],
    );
  });

  test("are not asked for again where that would not help", async () => {
    await assert.rejects(transfers.pull(`${proxy.origin}/none`), {
      code: "remote_not_found",
      message: /\/none answered 404/,
    });
    await assert.rejects(transfers.pull(`${proxy.origin}/private/pack`), {
      code: "remote_refused",
    });
    assert.equal(gets().length, 2);
  });

  test("are pulled by one at a time, and a pull that is stopped leaves its bytes", async () => {
    const stop = new AbortController();
    const begun = Promise.withResolvers<void>();
    proxy.failNext({ stallAfter: half });
    const first = transfers.pull(url(), {
      signal: stop.signal,
      onBytes: (doneBytes) => {
        if (doneBytes >= half) begun.resolve();
      },
    });
    const stopped = assert.rejects(first, /enough/);
    await begun.promise;
    await assert.rejects(transfers.pull(url()), { code: "busy" });
    stop.abort(new Error("enough"));
    await stopped;
    const { report, bytes } = await transfers.pull(url());
    assert.deepEqual(bytes, pack.bytes);
    assert.ok(report.resumed_bytes > 0);
  });

  test("that are empty are not sent", async () => {
    await writeFile(pack.path, "");
    await assert.rejects(transfers.push(pack.path, url()), { code: "bad_request" });
    await assert.rejects(transfers.push(`${pack.path}-none`, url()), { code: "bad_request" });
    assert.deepEqual(proxy.seen, []);
  });

  test("are written as they are, with their length and no content type", async () => {
    const report = await transfers.push(pack.path, `${proxy.origin}/put/a`);
    assert.deepEqual(report, {
      to: `${proxy.origin}/put/a`,
      tag: null,
      size_bytes: size,
      sha256: sha256Of(pack.bytes),
      sent: true,
      confirmed: true,
    });
    assert.deepEqual(await readFile(join(nginx.root, "put/a")), pack.bytes);
    const [put] = proxy.seen;
    assert.equal(put?.headers["content-length"], String(size));
    assert.equal(put?.headers["content-type"], undefined);
  });

  test("are written again after cuts, refusals for now, and lost answers", async () => {
    proxy.failNext({ uploadCutAfter: half });
    proxy.failNext({ status: 503 });
    proxy.failNext({ loseAnswer: true });
    await transfers.push(pack.path, `${proxy.origin}/put/b`);
    assert.deepEqual(await readFile(join(nginx.root, "put/b")), pack.bytes);
    assert.deepEqual(await readdir(join(tmp.path, "tmp/client_body")), []);
    assert.equal(proxy.seen.filter(({ method }) => method === "PUT").length, 4);
  });

  test("are not on the server when they are others than the ones that were hashed", async () => {
    const to = httpObject(new URL(`${proxy.origin}/put/c`), {
      retry: transferRetry(() => undefined),
    });
    const file = { path: pack.path, sizeBytes: size, sha256: sha256Of(Buffer.from("other")) };
    const options = { signal: AbortSignal.timeout(60_000), onBytes: () => undefined };
    await assert.rejects(to.write(file, options), { code: "remote_corrupt" });
    assert.equal(await stat(join(nginx.root, "put/c")).catch(() => undefined), undefined);
  });

  test("come by the proxy that the environment names, but for what it excepts", async (context) => {
    const forward = await ForwardProxy.start();
    context.after(() => forward[Symbol.asyncDispose]());
    for (const name of ["127.0.0.1", "localhost"] as const) {
      forward.seen.length = 0;
      const env = { http_proxy: forward.origin(name), no_proxy: "" };
      assert.deepEqual((await transfers.pull(url(), { env })).bytes, pack.bytes);
      assert.deepEqual(forward.seen, [url()]);
    }
    forward.seen.length = 0;
    const env = { HTTP_PROXY: forward.origin(), NO_PROXY: "127.0.0.1" };
    assert.deepEqual((await transfers.pull(url(), { env })).bytes, pack.bytes);
    assert.deepEqual(forward.seen, []);
  });

  test("of https are asked for by a tunnel, and a proxy that is none is told", async (context) => {
    const forward = await ForwardProxy.start();
    context.after(() => forward[Symbol.asyncDispose]());
    const stopping = new AbortController();
    forward.onConnect = () => stopping.abort(new Error("it asked"));
    const env = { HTTPS_PROXY: forward.origin() };
    const pulling = transfers.pull("https://pack.invalid/x", { env, signal: stopping.signal });
    await assert.rejects(pulling, /it asked/);
    assert.deepEqual(forward.seen, ["CONNECT pack.invalid:443"]);
    await assert.rejects(transfers.pull(url(), { env: { HTTP_PROXY: "user:secret@host" } }), {
      code: "bad_request",
      message: "HTTP_PROXY is not an http or https address",
    });
  });
});
