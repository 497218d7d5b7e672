/** The real daemon over an empty data directory: what strangers and hostile callers get. */
import assert from "node:assert/strict";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { isErrorCode, limits, type Route, routes } from "@forkd/api";
import { startDaemon, type TestDaemon } from "../../helpers/daemon.ts";
import {
  assertRawProblem,
  rawBody,
  rawHead,
  rawHttp,
  rawStatuses,
} from "../../helpers/raw-http.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

const table: readonly (readonly [string, Route])[] = Object.entries(routes);
const placeholder = /\{(\w+)\}/g;

/** What must name nothing, as a segment of a path. */
const segments = [
  ...["..", ".", "...", "%2e%2e", "%2E%2E", ".%2e", "..%2f..%2fetc%2fpasswd", "..%5c..%5cetc"],
  ...["%252e%252e%252f", "%c0%ae%c0%ae", "%ff", "%00", "base%00.json", "base%2f..%2fother"],
  ...[
    "%2fetc%2fpasswd",
    "base%0d%0aX-Note:%201",
    "base%20",
    "%20base",
    "base;x=1",
    "base%3b",
    "base~",
  ],
  ...[
    ".hidden",
    ".staging",
    "-rf",
    "--help",
    "$(id)",
    "%60id%60",
    "base%26id",
    "%e2%80%ae",
    "é".repeat(2),
  ],
  ...["a".repeat(65), "a".repeat(5_000), "*", "%2a", "{id}", "[object%20Object]"],
].map((segment) => (/^[\x21-\x7e]+$/.test(segment) ? segment : encodeURIComponent(segment)));

/** Good names that a table made of a plain object would know. */
const inherited = ["__proto__", "constructor", "toString", "hasOwnProperty", "__defineGetter__"];

describe("a hostile caller of the real daemon", { timeout: 120_000 }, () => {
  let tmp: TmpDir;
  let daemon: TestDaemon;
  let port: number;
  let authorization: string;

  before(async () => {
    tmp = await makeTmpDir("hostile");
    for (const dir of ["data", "other"]) await mkdir(join(tmp.path, dir));
    // It is where `..` would lead, and must stay as it is.
    await writeFile(join(tmp.path, "other/manifest.json"), "{}");
    daemon = await startDaemon(join(tmp.path, "data"));
    port = Number(new URL(daemon.url).port);
    authorization = `Authorization: Bearer ${daemon.token}`;
  });
  after(async () => {
    await daemon?.stop();
    await tmp?.[Symbol.asyncDispose]();
  });

  const ask = (method: string, path: string, ...lines: readonly string[]): Promise<string> =>
    rawHttp(
      port,
      rawHead(`${method} ${path} HTTP/1.1`, "Host: localhost", "Connection: close", ...lines),
    );

  const send = (method: string, path: string, body: string): Promise<string> =>
    rawHttp(
      port,
      rawHead(
        ...[`${method} ${path} HTTP/1.1`, "Host: localhost", "Connection: close", authorization],
        ...["Content-Type: application/json", `Content-Length: ${Buffer.byteLength(body)}`],
      ),
      body,
    );

  /** A refusal that is the caller's fault and has a code of the table. */
  const assertRefused = (answer: string, what: string): void => {
    const [status = 0] = rawStatuses(answer);
    assert.ok(status >= 400 && status < 500, `${what}: ${answer.slice(0, 300)}`);
    const { code } = rawBody(answer) as { code: string };
    assert.ok(isErrorCode(code) && code !== "internal", `${what}: ${code}`);
  };

  test("no route but those that are marked open answers without the token", async () => {
    const open = table.filter(([, route]) => route.open === true).map(([name]) => name);
    assert.deepEqual(open, ["health"]);
    for (const [name, { method, path, open: isOpen }] of table) {
      const concrete = path.replaceAll(placeholder, "base");
      for (const lines of [
        [],
        ["Authorization: Bearer not-the-token"],
        ["Authorization: Basic x"],
      ]) {
        const answer = await ask(method, concrete, ...lines);
        if (isOpen === true) assert.deepEqual(rawStatuses(answer), [200], name);
        else assertRawProblem(answer, 401, "unauthorized");
      }
    }
  });

  test("no hostile name in any path reaches anything", async () => {
    const named = table.filter(([, { path }]) => path.includes("{"));
    assert.ok(named.length > 0);
    for (const [, { method, path }] of named) {
      const paths = segments.map((segment) => path.replaceAll(placeholder, () => segment));
      const answers = await Promise.all(paths.map((each) => send(method, each, "{}")));
      for (const [index, answer] of answers.entries()) {
        assertRefused(answer, `${method} ${paths[index]}`);
      }
    }
  });

  test("names that every object has are names like others", async () => {
    for (const [, { method, path }] of table.filter(([, each]) => each.path.includes("{"))) {
      for (const name of inherited) {
        const answer = await send(method, path.replaceAll(placeholder, name), "{}");
        assertRefused(answer, `${method} ${path} of ${name}`);
      }
    }
  });

  test("no hostile tag in any body reaches anything", async () => {
    const tags = [
      "../other",
      "/etc/passwd",
      "..",
      "a/b",
      "a\0b",
      ".hidden",
      "-rf",
      "",
      "a".repeat(65),
    ];
    const bodies = tags.flatMap(
      (tag) =>
        [
          ["/v1/sandboxes", { snapshot_tag: tag }],
          ["/v1/snapshots", { tag, kernel: "/dev/null", rootfs: "/dev/null" }],
          ["/v1/snapshots/base/compact", { to: tag }],
        ] as const,
    );
    for (const [path, body] of bodies) {
      const text = JSON.stringify(body);
      assertRawProblem(await send("POST", path, text), 400, "invalid_tag");
    }
  });

  test("methods that a path does not have are refused, with those that it has", async () => {
    const paths = new Set(table.map(([, { path }]) => path));
    for (const path of paths) {
      const known = table
        .filter(([, route]) => route.path === path)
        .map(([, { method }]) => method);
      for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE"]) {
        if (known.some((each) => each === method)) continue;
        const answer = await ask(method, path.replaceAll(placeholder, "base"), authorization);
        assertRawProblem(answer, 405, "method_not_allowed");
        const allow = /^allow: (.*)$/m.exec(answer)?.[1]?.trim().split(", ") ?? [];
        for (const each of known) assert.ok(allow.includes(each), `${path}: ${allow}`);
      }
    }
  });

  const large = (piece: string): string =>
    piece.repeat(Math.floor((limits.requestBodyBytesMax - 100) / piece.length));
  const hostileJson: Readonly<Record<string, string>> = {
    "a key that names the prototype": '{"snapshot_tag":"base","__proto__":{"n":5}}',
    "a key that names the constructor":
      '{"snapshot_tag":"base","constructor":{"prototype":{"n":5}}}',
    "the prototype's name with an escape": '{"snapshot_tag":"base","\\u005f_proto__":{"n":5}}',
    "a good tag, then a bad one": '{"snapshot_tag":"base","snapshot_tag":"../other"}',
    "a list for an object": '[{"snapshot_tag":"base"}]',
    "a text for an object": '"base"',
    null: "null",
    "half of a text": '{"snapshot_tag":"ba',
    "two documents": '{"snapshot_tag":"base"}{"n":5}',
    "a comment": '{"snapshot_tag":"base"/**/}',
    NaN: '{"snapshot_tag":"base","n":NaN}',
    "a number beyond all numbers": '{"snapshot_tag":"base","n":1e999}',
    "a number with a million digits": `{"snapshot_tag":"base","n":1${"0".repeat(1_000_000)}}`,
    "a number that is not whole": '{"snapshot_tag":"base","n":1.5}',
    "UTF-16": Buffer.from('{"snapshot_tag":"base"}', "utf16le").toString("latin1"),
    "arrays in arrays": large("["),
    "objects in objects": large('{"a":'),
    "a million values": `[${large("1,")}1]`,
    "a million names": `{${large('"a":1,')}"a":1}`,
    "a huge text": `{"snapshot_tag":"${large("a")}"}`,
  };
  test("hostile JSON is refused, whatever makes it so, and nothing grows by it", async () => {
    const resident = async (): Promise<number> =>
      Number(/^process_resident_memory_bytes (\d+)$/m.exec(await daemon.client.metrics())?.[1]);
    const round = async (): Promise<void> => {
      for (const [name, text] of Object.entries(hostileJson)) {
        assertRefused(await send("POST", "/v1/sandboxes", text), name);
      }
    };
    await round();
    const before = await resident();
    for (let count = 0; count < 4; count += 1) await round();
    const grownMib = ((await resident()) - before) / 1024 / 1024;
    assert.ok(grownMib < 150, `it grew by ${grownMib} MiB`);
  });

  test("names and pages of others are refused on every route", async () => {
    const foreign = [
      ["Host: evil.example"],
      ["Host: localhost.evil.example"],
      ["Host: 127.0.0.1@evil.example"],
      ["Host: localhost", "Origin: https://evil.example"],
      ["Host: localhost", "Origin: null"],
    ];
    for (const [, { method, path }] of table) {
      for (const lines of foreign) {
        const head = [`${method} ${path.replaceAll(placeholder, "base")} HTTP/1.1`, ...lines];
        const answer = await rawHttp(port, rawHead(...head, "Connection: close", authorization));
        assertRawProblem(answer, 403, "forbidden");
      }
    }
  });

  test("all that left the daemon as it was", async () => {
    assert.deepEqual(await readdir(join(tmp.path, "other")), ["manifest.json"]);
    assert.deepEqual((await readdir(tmp.path)).sort(), ["data", "other"]);
    assert.deepEqual(await readdir(join(tmp.path, "data/snapshots")), []);
    assert.deepEqual(await daemon.client.health(), { ok: true });
    assert.equal(daemon.process.exitCode, null);
    assert.equal(({} as { n?: number }).n, undefined);
  });
});
