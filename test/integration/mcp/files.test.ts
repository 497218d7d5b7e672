/** `read_file` and `write_file` of `forkd-mcp`, before a server that has one file in memory. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { buffer } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { type McpSession, stdioSession, structured, textOf } from "../../helpers/mcp.ts";

const bytesMax = 256 * 1024;
let file = Buffer.alloc(0);
let asked: string[] = [];
/** For a file whose size is not known, ranges are not told of, and more is sent than was asked. */
let ignoresRanges = false;
let mcp: McpSession;

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  asked.push(`${request.method} ${request.url} ${request.headers.range ?? ""}`.trim());
  if (request.method === "PUT") {
    file = await buffer(request);
    const info = { uid: 0, gid: 0, size_bytes: file.length, modified_at_unix_ms: 1 };
    response.end(JSON.stringify({ name: "f", type: "file", mode: "0644", ...info }));
    return;
  }
  const [, first = "0", last = "0"] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "") ?? [];
  const from = Number(first);
  if (ignoresRanges) response.end(file.subarray(from));
  else if (from >= file.length) {
    response.statusCode = 416;
    const code = "range_not_satisfiable";
    response.end(JSON.stringify({ error: `the file has ${file.length} bytes`, code, hint: "-" }));
  } else {
    response.statusCode = 206;
    response.end(file.subarray(from, Number(last) + 1));
  }
}

const server = createServer((request, response) => void answer(request, response));

before(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  mcp = await stdioSession({ url: `http://127.0.0.1:${address.port}`, token: "t" });
  // From here on the client checks every result against its tool's schema.
  await mcp.client.listTools();
});
after(async () => {
  await mcp?.[Symbol.asyncDispose]();
  server.close();
});

const place = { sandbox_id: "sb-1", path: "/f" };
const read = async (args: Record<string, unknown> = {}) =>
  structured(await mcp.call("read_file", { ...place, ...args }));
const write = (args: Record<string, unknown>) => mcp.call("write_file", { ...place, ...args });

/** Follows next_offset to the end. */
async function readAll(args: Record<string, unknown>): Promise<string[]> {
  const parts: string[] = [];
  for (let offset: unknown = 0; offset !== null; ) {
    const part = await read({ ...args, offset });
    parts.push(String(part["content"]));
    assert.notEqual(part["next_offset"], offset, "a read that does not come on");
    offset = part["next_offset"];
  }
  return parts;
}

test("a text is read in parts of whole characters, whatever their length", async () => {
  const text = "\uFEFFa\u00E9\u20AC\u{1F600}".repeat(5);
  file = Buffer.from(text);
  for (const length of [4, 5, 6, 7, 11, 59, 60, 64]) {
    assert.equal((await readAll({ length })).join(""), text, `length ${length}`);
  }
});

test("a part that begins within a character begins with the next one", async () => {
  file = Buffer.from("\u{1F600}bc");
  for (const offset of [1, 2, 3, 4]) {
    const { content, offset: from, size_bytes, next_offset } = await read({ offset });
    assert.deepEqual([content, from, size_bytes, next_offset], ["bc", 4, 2, null]);
  }
});

test("the end is known, at the bound and one byte beyond it; an empty file is one", async () => {
  const sizes: [number, unknown][] = [
    [0, null],
    [10, null],
    [11, 10],
  ];
  for (const isIgnored of [false, true]) {
    ignoresRanges = isIgnored;
    for (const [size, next] of sizes) {
      file = Buffer.alloc(size, "x");
      const { size_bytes, next_offset } = await read({ length: 10 });
      assert.deepEqual([size_bytes, next_offset], [Math.min(size, 10), next]);
    }
  }
  ignoresRanges = false;
});

test("bytes come as base64; as text they are refused, and so is a cut end", async () => {
  file = Buffer.from([0, 255, 128, 10]);
  const { content } = await read({ encoding: "base64" });
  assert.equal(content, file.toString("base64"));
  for (const bytes of [file, Buffer.from("\u20AC").subarray(0, 2)]) {
    file = bytes;
    const refused = textOf(await mcp.call("read_file", place));
    assert.match(refused, /^error bad_request: \/f is not UTF-8 .*\nhint: .*encoding base64$/);
  }
});

test("beyond the end is told", async () => {
  file = Buffer.from("abc");
  const refused = textOf(await mcp.call("read_file", { ...place, offset: 4 }));
  assert.match(refused, /^error range_not_satisfiable: .*\n/);
});

test("a text and bytes are written as they are, up to the bound", async () => {
  assert.equal(structured(await write({ content: "\u20AC\0\r\n" }))["size_bytes"], 6);
  assert.deepEqual(file, Buffer.from("\u20AC\0\r\n"));
  const bytes = Buffer.from(Array.from({ length: bytesMax }, (_, index) => (index * 7) % 256));
  structured(await write({ content: bytes.toString("base64"), encoding: "base64" }));
  assert.ok(file.equals(bytes));
  asked = [];
  const options = { mode: "0755", parents: true, exclusive: true, user: "root" };
  structured(await write({ content: "", ...options }));
  assert.equal(file.length, 0);
  const query = "path=%2Ff&user=root&mode=0755&parents=true&exclusive=true";
  assert.deepEqual(asked, [`PUT /v1/sandboxes/sb-1/files?${query}`]);
});

test("what cannot be written is refused before anything is sent", async () => {
  asked = [];
  const big = Buffer.alloc(bytesMax + 1, "x");
  const refusals: [Record<string, unknown>, RegExp][] = [
    [{ content: String(big) }, /^error payload_too_large: .*262144.*\nhint: .*exec_command/],
    [{ content: big.toString("base64"), encoding: "base64" }, /^error payload_too_large: /],
    [{ content: "no base64!", encoding: "base64" }, /^error bad_request: .*\nhint: .*text$/],
    [{ content: "YQ", encoding: "base64" }, /^error bad_request: .*padding/],
    [{ content: "\uD800" }, /^error bad_request: .*half a character/],
    [{ content: "", mode: "rwx" }, /^error bad_request: [\s\S]*mode/],
    [{ content: "", path: "a\0b" }, /^error bad_request: [\s\S]*NUL/],
  ];
  for (const [args, reason] of refusals) assert.match(textOf(await write(args)), reason);
  const reads: [Record<string, unknown>, RegExp][] = [
    [{ length: bytesMax + 1 }, /length/],
    [{ length: 3 }, /length/],
    [{ offset: -1 }, /offset/],
  ];
  for (const [args, reason] of reads) {
    const refused = textOf(await mcp.call("read_file", { ...place, ...args }));
    assert.match(refused, /^error bad_request: /);
    assert.match(refused, reason);
  }
  assert.deepEqual(asked, []);
});
