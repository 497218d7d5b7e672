import assert from "node:assert/strict";
import { once } from "node:events";
import { chmod, copyFile, writeFile } from "node:fs/promises";
import { type RequestOptions, request } from "node:https";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type PeerCertificate, TLSSocket } from "node:tls";
import { missing } from "../../helpers/capabilities.ts";
import { type CertificateFiles, makeCertificate } from "../../helpers/certificates.ts";
import { startProcess } from "../../helpers/daemon-process.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const skip = missing({ programs: ["openssl"] });
const tokens = ["first-token-of-the-reload-test", "second-token-of-the-reload-test"] as const;

interface Host {
  readonly dir: string;
  readonly url: string;
  readonly pid: number;
  /** Sends SIGHUP and waits until the daemon has said so often what became of it. */
  reload(said: string, count?: number): Promise<void>;
  useToken(token: string): Promise<void>;
  useCertificate(files: CertificateFiles): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

async function startTlsDaemon(context: TestContext): Promise<Host> {
  const tmp = await makeTmpDir("reload");
  const [token, cert, key] = ["token", "cert.pem", "key.pem"].map((name) => join(tmp.path, name));
  assert.ok(token !== undefined && cert !== undefined && key !== undefined);
  const useToken = async (text: string): Promise<void> => {
    await writeFile(token, text);
    await chmod(token, 0o600);
  };
  const useCertificate = async (files: CertificateFiles): Promise<void> => {
    await copyFile(files.cert, cert);
    await copyFile(files.key, key);
  };
  await useToken(tokens[0]);
  await useCertificate(await makeCertificate(tmp.path, "first"));
  const tls = ["--tls-cert", cert, "--tls-key", key, "--token-file", token];
  const { daemon, url, pid } = await startProcess(context, join(tmp.path, "data"), ...tls);
  const reload = async (said: string, count = 1): Promise<void> => {
    process.kill(pid, "SIGHUP");
    await daemon.logged(said, count);
  };
  const end = async (): Promise<void> => {
    process.kill(pid, "SIGTERM");
    assert.equal(await daemon.ended, 0);
    await tmp[Symbol.asyncDispose]();
  };
  return { dir: tmp.path, url, pid, reload, useToken, useCertificate, [Symbol.asyncDispose]: end };
}

interface Answer {
  readonly status: number;
  /** Common name of the daemon's certificate. */
  readonly name: string;
}

/** One request over a connection of its own. The certificate is compared by the caller. */
function ask(host: Host, token: string, more: RequestOptions = {}) {
  const sent = request(`${host.url}/version`, {
    ...more,
    agent: false,
    rejectUnauthorized: false,
    headers: { authorization: `Bearer ${token}`, ...more.headers },
  });
  const answer = once(sent, "response").then(([response]): Answer => {
    const socket = response.socket;
    assert.ok(socket instanceof TLSSocket);
    const certificate: PeerCertificate = socket.getPeerCertificate();
    response.resume();
    return { status: response.statusCode, name: String(certificate.subject.CN) };
  });
  return { sent, answer };
}

async function get(host: Host, token: string): Promise<Answer> {
  const { sent, answer } = ask(host, token);
  sent.end();
  return await answer;
}

test("twenty reloads under load drop no request", { skip }, async (context) => {
  await using host = await startTlsDaemon(context);
  const pairs = await Promise.all(["a", "b"].map((name) => makeCertificate(host.dir, name)));
  const stop = new AbortController();
  const names = new Set<string>();
  let answered = 0;
  const workers = Array.from({ length: 4 }, async () => {
    while (!stop.signal.aborted) {
      const { status, name } = await get(host, tokens[0]);
      assert.equal(status, 200);
      names.add(name);
      answered += 1;
    }
  });
  for (let turn = 1; turn <= 20; turn += 1) {
    await host.useCertificate(pairs[turn % 2] ?? assert.fail());
    const before = answered;
    await host.reload("reloaded: token", turn);
    while (answered < before + 4) await get(host, tokens[0]);
  }
  stop.abort();
  await Promise.all(workers);
  assert.deepEqual([...names].sort(), ["a", "b", "first"]);
});

test("a new token opens and the old one does not; what was let in before is finished", {
  skip,
}, async (context) => {
  await using host = await startTlsDaemon(context);
  const body = JSON.stringify({ snapshot_tag: "none" });
  const { sent, answer } = ask(host, tokens[0], {
    method: "POST",
    path: "/v1/sandboxes",
    headers: { "content-type": "application/json", "content-length": body.length },
  });
  sent.write(body.slice(0, 5));
  assert.equal((await get(host, tokens[0])).status, 200);
  await host.useToken(tokens[1]);
  await host.reload("reloaded: token");
  assert.equal((await get(host, tokens[0])).status, 401);
  assert.equal((await get(host, tokens[1])).status, 200);
  sent.end(body.slice(5));
  assert.equal((await answer).status, 404);
});

test("files that cannot be used leave the old ones in force", { skip }, async (context) => {
  await using host = await startTlsDaemon(context);
  const [a, b] = await Promise.all(["a", "b"].map((name) => makeCertificate(host.dir, name)));
  assert.ok(a !== undefined && b !== undefined);
  const half = join(host.dir, "half.pem");
  await writeFile(half, "-----BEGIN CERTIFICATE-----\nMIIB");
  const broken = [
    { cert: a.cert, key: b.key },
    { ...a, cert: half },
  ];
  for (const [index, files] of broken.entries()) {
    await host.useCertificate(files);
    await host.reload("the reload failed", index + 1);
    assert.deepEqual(await get(host, tokens[0]), { status: 200, name: "first" });
  }
  await host.useCertificate(a);
  await host.useToken("CHANGE_ME");
  await host.reload("is a placeholder");
  assert.deepEqual(await get(host, tokens[0]), { status: 200, name: "first" });
  await host.useToken(tokens[1]);
  await host.reload("reloaded: token");
  assert.deepEqual(await get(host, tokens[1]), { status: 200, name: "a" });
});
