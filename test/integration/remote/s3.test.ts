import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  ListMultipartUploadsCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { FaultProxy, type Seen } from "../../helpers/fault-proxy.ts";
import { ForwardProxy } from "../../helpers/forward-proxy.ts";
import { motoServer, startMoto, type TestS3 } from "../../helpers/moto.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";
import { sha256Of, Transfers } from "../../helpers/transfers.ts";

const moto = await motoServer();
const skip = "skip" in moto ? moto.skip : false;
const small = 300_000;
const partBytes = 16 * 1024 * 1024;
/** Three parts. */
const large = 40 * 1024 * 1024;

const isPart = ({ method, url }: Seen): boolean => method === "PUT" && url.includes("partNumber=");

describe("packs at an S3 server (moto)", { skip }, () => {
  let tmp: TmpDir;
  let server: TestS3;
  let proxy: FaultProxy;
  let transfers: Transfers;
  let env: Record<string, string>;
  let client: S3Client;

  before(async () => {
    assert.ok("program" in moto);
    tmp = await makeTmpDir("s3");
    server = await startMoto(moto.program);
    // As a user gives them: what the client looks up is in its process's environment.
    process.env["AWS_ACCESS_KEY_ID"] = "an-id";
    process.env["AWS_SECRET_ACCESS_KEY"] = "a-secret";
    process.env["AWS_ENDPOINT_URL"] = `http://127.0.0.1:${server.port}`;
    client = new S3Client({ region: "us-east-1", forcePathStyle: true });
    await client.send(new CreateBucketCommand({ Bucket: "packs" }));
  });
  after(async () => {
    client.destroy();
    await server[Symbol.asyncDispose]();
    await tmp[Symbol.asyncDispose]();
  });
  beforeEach(async (context) => {
    transfers = await Transfers.in(tmp.path);
    proxy = await FaultProxy.startFor(context, { port: server.port });
    process.env["AWS_ENDPOINT_URL"] = proxy.origin;
    env = { AWS_ENDPOINT_URL: proxy.origin };
  });

  const unfinished = async (): Promise<number> => {
    const listed = await client.send(new ListMultipartUploadsCommand({ Bucket: "packs" }));
    return listed.Uploads?.length ?? 0;
  };

  test("go there and come back, with the hash that nobody had to name", async () => {
    const { path, bytes } = await transfers.makeFile("pack", small);
    const pushed = await transfers.push(path, "s3://packs/a/small", { env });
    assert.deepEqual(pushed, {
      to: "s3://packs/a/small",
      tag: null,
      size_bytes: small,
      sha256: sha256Of(bytes),
      sent: true,
      confirmed: true,
    });
    const pulled = await transfers.pull("s3://packs/a/small", { env });
    assert.deepEqual(pulled.bytes, bytes);
    assert.equal(pulled.report.verified, true);
  });

  test("go and come by the proxy that the environment names", async (context) => {
    const forward = await ForwardProxy.start();
    context.after(() => forward[Symbol.asyncDispose]());
    const { path, bytes } = await transfers.makeFile("pack", small);
    const proxied = { ...env, HTTP_PROXY: forward.origin() };
    assert.ok((await transfers.push(path, "s3://packs/proxied", { env: proxied })).confirmed);
    const { bytes: pulled } = await transfers.pull("s3://packs/proxied", { env: proxied });
    assert.deepEqual(pulled, bytes);
    assert.equal(forward.seen.length, proxy.seen.length);
  });

  test("go in parts, of which broken ones are sent again", async () => {
    const { path, bytes } = await transfers.makeFile("pack", large);
    proxy.failNext({ uploadCutAfter: 5_000_000 }, isPart);
    proxy.failNext({ status: 503, headers: { "retry-after": "1" } }, isPart);
    proxy.failNext({ loseAnswer: true }, ({ method, url }) => {
      return method === "POST" && url.includes("uploadId=");
    });
    const { confirmed } = await transfers.push(path, "s3://packs/large", { env });
    assert.ok(confirmed);
    const parts = proxy.seen.filter(isPart);
    assert.equal(parts.length, 5);
    for (const { url, headers } of parts) {
      const number = Number(/partNumber=(\d+)/.exec(url)?.[1]);
      const part = bytes.subarray((number - 1) * partBytes, number * partBytes);
      // The server was not to keep a part that is not this one. moto does not look, S3 does.
      assert.equal(headers["content-md5"], createHash("md5").update(part).digest("base64"));
      assert.equal(headers["x-amz-content-sha256"], sha256Of(part));
    }
    assert.equal(await unfinished(), 0);
    proxy.failNext({ cutAfter: 20_000_000 }, ({ method }) => method === "GET");
    const pulled = await transfers.pull("s3://packs/large", { env });
    assert.deepEqual(pulled.bytes, bytes);
    const [, again] = proxy.seen.filter(({ method }) => method === "GET");
    assert.match(again?.headers.range ?? "", /^bytes=[1-9]\d*-$/);
    assert.match(String(again?.headers["if-match"]), /^"/);
  });

  test("leave no parts behind when they are given up", async () => {
    const { path } = await transfers.makeFile("pack", large);
    proxy.failNext({ status: 403 }, isPart);
    await assert.rejects(transfers.push(path, "s3://packs/refused", { env }), {
      code: "remote_refused",
    });
    assert.equal(await unfinished(), 0);
    await assert.rejects(transfers.pull("s3://packs/refused", { env }), {
      code: "remote_not_found",
    });
  });

  /** Stops a push once the store has a part. */
  const stopAfterPart = async (path: string, to: string): Promise<void> => {
    const stopping = new AbortController();
    const stop = (): void => stopping.abort(new Error("stopped"));
    const pushing = transfers.push(path, to, { env, signal: stopping.signal, onBytes: stop });
    await assert.rejects(pushing, /stopped/);
  };

  test("go on in another run with the parts that have arrived", async () => {
    const { path, bytes } = await transfers.makeFile("pack", large);
    await stopAfterPart(path, "s3://packs/stopped");
    assert.equal(await unfinished(), 1);
    proxy.seen.length = 0;
    const { sent, confirmed } = await transfers.push(path, "s3://packs/stopped", { env });
    assert.deepEqual([sent, confirmed], [true, true]);
    assert.ok(proxy.seen.filter(isPart).length < 3, "a part that was there was sent again");
    assert.equal(await unfinished(), 0);
    assert.deepEqual((await transfers.pull("s3://packs/stopped", { env })).bytes, bytes);
  });

  test("begin anew with another file, and when the store has forgotten the parts", async () => {
    const to = "s3://packs/changed";
    await stopAfterPart((await transfers.makeFile("pack", large)).path, to);
    const other = await transfers.makeFile("other", large);
    await stopAfterPart(other.path, to);
    assert.equal(await unfinished(), 1, "the parts of the first file are left behind");
    const listed = await client.send(new ListMultipartUploadsCommand({ Bucket: "packs" }));
    const { UploadId } = listed.Uploads?.[0] ?? {};
    const gone = { Bucket: "packs", Key: "changed", UploadId };
    await client.send(new AbortMultipartUploadCommand(gone));
    assert.ok((await transfers.push(other.path, to, { env })).sent);
    assert.equal(await unfinished(), 0);
    assert.deepEqual((await transfers.pull(to, { env })).bytes, other.bytes);
  });

  test("are not sent again, and replace others only when asked to", async () => {
    const { path } = await transfers.makeFile("pack", small);
    const other = await transfers.makeFile("other", small);
    const to = "s3://packs/kept";
    await transfers.push(path, to, { env });
    assert.equal((await transfers.push(path, to, { env })).sent, false);
    await assert.rejects(transfers.push(other.path, to, { env }), { code: "remote_exists" });
    assert.equal((await transfers.push(other.path, to, { env, force: true })).sent, true);
    assert.deepEqual((await transfers.pull(to, { env })).bytes, other.bytes);
  });

  test("begin anew when the object is another by now", async () => {
    const { path } = await transfers.makeFile("pack", small);
    const other = await transfers.makeFile("other", small);
    const to = "s3://packs/changing";
    await transfers.push(path, to, { env });
    const isGet = ({ method }: Seen): boolean => method === "GET";
    proxy.failNext({ cutAfter: small / 2 }, isGet);
    proxy.failNext({ status: 403 }, isGet);
    await assert.rejects(transfers.pull(to, { env }), { code: "remote_refused" });
    await transfers.push(other.path, to, { env, force: true });
    const pulled = await transfers.pull(to, { env });
    assert.deepEqual(pulled.bytes, other.bytes);
    assert.equal(pulled.report.resumed_bytes, 0);
  });

  test("are here and proven also when only their unpacking is tried again", async () => {
    const { path, bytes } = await transfers.makeFile("pack", small);
    const to = "s3://packs/again";
    await transfers.push(path, to, { env });
    const refusal = new Error("it is there already");
    const unpack = (): Promise<never> => Promise.reject(refusal);
    await assert.rejects(transfers.pull(to, { env, unpack }), refusal);
    const pulled = await transfers.pull(to, { env });
    assert.deepEqual(pulled.bytes, bytes);
    assert.deepEqual([pulled.report.verified, pulled.report.resumed_bytes], [true, small]);
  });

  test("that were damaged at rest are refused", async () => {
    const { path } = await transfers.makeFile("pack", small);
    const to = "s3://packs/damaged";
    await transfers.push(path, to, { env });
    proxy.failNext({ flipAt: 1000 }, ({ method }) => method === "GET");
    await assert.rejects(transfers.pull(to, { env }), { code: "remote_corrupt" });
    assert.deepEqual(await transfers.partials(), []);
  });

  test("need a bucket, and credentials", async () => {
    const { path } = await transfers.makeFile("pack", small);
    await assert.rejects(transfers.push(path, "s3://no-such-bucket/x", { env }), {
      code: "remote_not_found",
    });
    const kept = { ...process.env };
    const cut = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    for (const name of cut) delete process.env[name];
    process.env["AWS_EC2_METADATA_DISABLED"] = "true";
    try {
      await assert.rejects(transfers.push(path, "s3://packs/x", { env }), {
        code: "remote_refused",
        hint: /AWS_ACCESS_KEY_ID/,
      });
    } finally {
      for (const name of cut) process.env[name] = kept[name];
    }
  });
});
