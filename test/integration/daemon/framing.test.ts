/** Requests whose end or meaning is not the same for everybody: none may be read in two ways. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { ErrorCode } from "@forkd/api";
import type { AuditEntry } from "@forkd/host/daemon/audit.ts";
import { assertRawProblem, rawGet, rawHead, rawHttp, rawStatuses } from "../../helpers/raw-http.ts";
import { listenForTest, TestServer } from "../../helpers/test-server.ts";

const token = "correct-horse-battery-staple";
const authorization = `Authorization: Bearer ${token}`;
const body = '{"snapshot_tag":"base"}';
const size = body.length.toString(16);
/** The body as one chunk, with the end behind it. */
const chunks = `${size}\r\n${body}\r\n0\r\n\r\n`;
const chunked = "Transfer-Encoding: chunked";
const length = `Content-Length: ${body.length}`;
/** What is smuggled: it must not be served whatever stands before it. */
const hidden = rawHead("GET /version HTTP/1.1", "Host: localhost", authorization);

const long = "x".repeat(20_000);
const manyHeaders = Array.from({ length: 2500 }, () => "A: b");
const restSize = (body.length - 5).toString(16);
const traceLines = [
  "TRACE /version HTTP/1.1",
  "Host: localhost",
  "Connection: close",
  authorization,
];

const post = (...headers: readonly string[]): string =>
  rawHead(
    ...["POST /v1/sandboxes HTTP/1.1", "Host: localhost", "Connection: close"],
    ...[authorization, "Content-Type: application/json", ...headers],
  );

const sent = (...chunks: readonly string[]): string => post(chunked) + chunks.join("\r\n");

/** Each with what a lenient reader would take for the body. */
const ambiguous: Readonly<Record<string, string>> = {
  "a length and chunks": `${post(length, chunked)}0\r\n\r\n`,
  "chunks and a length": `${post(chunked, "Content-Length: 4")}0\r\n\r\n`,
  "two lengths": post(length, "Content-Length: 3") + body,
  "one length twice": post(length, length) + body,
  "a list of lengths": post(`${length}, ${body.length}`) + body,
  "a length with a sign": post(`Content-Length: +${body.length}`) + body,
  "a negative length": post("Content-Length: -1") + body,
  "a length in hex": post(`Content-Length: 0x${size}`) + body,
  "a length beyond all integers": post("Content-Length: 99999999999999999999999") + body,
  "a space before the colon": post(`Content-Length : ${body.length}`) + body,
  "a folded header": post("X-Note: one\r\n two", length) + body,
  "a folded coding": `${post("Transfer-Encoding:\r\n chunked")}0\r\n\r\n`,
  "bare line feeds": (post(length) + body).replaceAll("\r\n", "\n"),
  "a bare carriage return": post("X-Note: one\rContent-Length: 5", length) + body,
  "a zero byte in a header": post("X-Note: one\0two", length) + body,
  "the coding identity": post("Transfer-Encoding: identity", length) + body,
  "a coding before chunked": `${post("Transfer-Encoding: gzip, chunked")}${chunks}`,
  "a coding behind chunked": `${post("Transfer-Encoding: chunked, gzip")}${chunks}`,
  "an unknown coding": `${post("Transfer-Encoding: xchunked")}0\r\n\r\n`,
  "a coding behind a vertical tab": `${post("Transfer-Encoding: \x0bchunked")}0\r\n\r\n`,
  "two codings": `${post(chunked, "Transfer-Encoding: identity")}0\r\n\r\n`,
  "a chunk of negative size": sent("-1", body, "0", "", ""),
  "a chunk's size with 0x": sent(`0x${size}`, body, "0", "", ""),
  "a chunk's size that overflows": sent("fffffffffffffffff", body, "0", "", ""),
  "a chunk's size with a space": sent(`${size} `, body, "0", "", ""),
  "a chunk longer than its size": sent("3", body, "0", "", ""),
  "chunks ended by line feeds": `${post(chunked)}${size}\n${body}\n0\n\n`,
  "a line feed in a chunk's extension": sent(`${size};a\nb`, body, "0", "", ""),
  "an endless chunk extension": sent(`${size};${long}`, body, "0", "", ""),
  "a length in a trailer": sent(size, body, "0", "Content-Length: 5", "", ""),
  "chunks in HTTP/1.0": `${post(chunked).replace("HTTP/1.1", "HTTP/1.0")}${chunks}`,
  "HTTP/0.9": "GET /version\r\n\r\n",
  "HTTP/1.2": rawGet("/version", authorization).replace("HTTP/1.1", "HTTP/1.2"),
  "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  "two hosts": rawGet("/version", authorization, "Host: evil.example"),
  "two tokens": rawGet("/version", authorization, "Authorization: Bearer other"),
  "two tokens, ours last": rawGet("/version", "Authorization: Bearer other", authorization),
  "two types": post("Content-Type: text/plain", length) + body,
  "an unknown expectation": post("Expect: the-worst", length) + body,
  "a space in the path": rawGet("/ver sion", authorization),
  "a control character in the path": rawGet("/ver\x01sion", authorization),
  "a letter beyond ASCII in the path": rawGet("/verß", authorization),
};

/** A head for a route that reads JSON, with a token; `lines` may say more. */
const jsonHead = (path: string, ...lines: readonly string[]): string =>
  rawHead(`POST ${path} HTTP/1.1`, "Host: localhost", "Connection: close", ...lines);

const refused: readonly (readonly [string, string, number, ErrorCode])[] = [
  [
    "a compressed body",
    post("Content-Encoding: gzip", length) + body,
    415,
    "unsupported_media_type",
  ],
  [
    "a body of another type",
    jsonHead("/v1/sandboxes", authorization, "Content-Type: text/plain", length) + body,
    ...([415, "unsupported_media_type"] as const),
  ],
  ["an endless trailer", sent(size, body, "0", `A: ${long}`, "", ""), 431, "headers_too_large"],
  ["an endless header", rawGet("/version", `A: ${long}`), 431, "headers_too_large"],
  ["thousands of headers", rawGet("/version", ...manyHeaders), 431, "headers_too_large"],
  ["an endless path", rawGet(`/${long}`, authorization), 431, "headers_too_large"],
  ["a long path", rawGet(`/${long.slice(0, 15_000)}`, authorization), 404, "route_not_found"],
  ["a tunnel", rawHead("CONNECT evil.example:443 HTTP/1.1", "Host: x"), 405, "method_not_allowed"],
  ["a trace", rawHead(...traceLines), 405, "method_not_allowed"],
  [
    "another method in a header",
    jsonHead("/v1/snapshots/base", authorization, "X-HTTP-Method-Override: DELETE"),
    ...([405, "method_not_allowed"] as const),
  ],
  ["another path in a header", rawGet("/version", "X-Original-URL: /healthz"), 401, "unauthorized"],
  [
    "a body without a token",
    jsonHead("/v1/sandboxes", "Content-Length: 2097152"),
    401,
    "unauthorized",
  ],
];

const served: readonly (readonly [string, string, number])[] = [
  ["a length", post(length) + body, 201],
  ["two chunks", sent("5", body.slice(0, 5), restSize, body.slice(5), "0", "", ""), 201],
  ["a chunk with an extension", sent(`${size};a=b`, body, "0", "", ""), 201],
  ["a client that asks before it sends", post(length, "Expect: 100-continue") + body, 201],
  ["HTTP/1.0", rawHead("GET /version HTTP/1.0", authorization), 200],
  ["HEAD", rawGet("/version", authorization).replace("GET", "HEAD"), 200],
];

/** What a new server says to these bytes, and how many spawns it was asked for. */
async function send(context: TestContext, ...parts: readonly string[]) {
  const server = new TestServer({ token });
  const port = await listenForTest(server, context);
  const answer = await rawHttp(port, ...parts);
  return { answer, spawns: server.service.spawnRequests.length };
}

for (const [name, request] of Object.entries(ambiguous)) {
  test(`${name}: refused, and nothing behind it is served`, async (context) => {
    const { answer, spawns } = await send(context, request, hidden);
    assert.deepEqual(rawStatuses(answer), [400], answer);
    assertRawProblem(answer, 400, "bad_request");
    assert.equal(spawns, 0);
  });
}

for (const [name, request, status, code] of refused) {
  test(`${name}: answered ${status}`, async (context) => {
    const { answer, spawns } = await send(context, request);
    assertRawProblem(answer, status, code);
    assert.equal(spawns, 0);
  });
}

for (const [name, request, status] of served) {
  test(`${name}: served`, async (context) => {
    const { answer, spawns } = await send(context, request);
    assert.deepEqual(rawStatuses(answer), [status]);
    assert.equal(spawns, status === 201 ? 1 : 0);
  });
}

/** What cannot be a request all the same was asked of the daemon, and by somebody. */
const unread = { method: "-", path: "-" };
const unrouted: readonly (readonly [string, string, Partial<AuditEntry>])[] = [
  [
    "a tunnel",
    rawHead("CONNECT evil.example:443 HTTP/1.1", "Host: x"),
    {
      ...{ method: "CONNECT", path: "evil.example:443" },
      ...{ status: 405, outcome: "method_not_allowed" },
    },
  ],
  [
    "bytes that are no HTTP",
    "\x16\x03\x01 hello\r\n\r\n",
    { ...unread, status: 400, outcome: "bad_request" },
  ],
  [
    "an endless header",
    rawGet("/", `A: ${long}`),
    { ...unread, status: 431, outcome: "headers_too_large" },
  ],
];

for (const [name, bytes, expected] of unrouted) {
  test(`${name}: is audited and counted`, async (context) => {
    const server = new TestServer({ token });
    const port = await listenForTest(server, context);
    await rawHttp(port, bytes);
    const [entry, ...others] = server.audited;
    assert.deepEqual(others, []);
    assert.partialDeepStrictEqual(entry, { ...expected, principal: "none", remote: "127.0.0.1" });
    const headers = { host: "127.0.0.1:8889", authorization: `Bearer ${token}` };
    const metrics = await server.inject({ url: "/metrics", headers });
    const count = `forkd_http_answers_total{status="${expected.status}"} 1`;
    assert.ok(metrics.body.split("\n").includes(count), metrics.body);
  });
}
