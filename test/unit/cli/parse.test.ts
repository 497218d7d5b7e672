import assert from "node:assert/strict";
import { test } from "node:test";
import { Flags, flagOf } from "@forkd/host/cli/flags.ts";
import {
  parseEnvPairs,
  parseNetns,
  parseReadyProbe,
  parseTarget,
  slugOf,
} from "@forkd/host/cli/parse.ts";
import { parseWarmOptions } from "@forkd/host/cli/warm-options.ts";
import fc from "fast-check";

test("a readiness probe has three forms", () => {
  assert.deepEqual(parseReadyProbe("tcp:5432"), { tcp: 5432 });
  assert.deepEqual(parseReadyProbe("file:/run/ready"), { file: "/run/ready" });
  assert.deepEqual(parseReadyProbe("line:ready: now"), { line: "ready: now" });
});

test("what is no readiness probe is refused, with the forms in the hint", () => {
  for (const text of [
    "",
    "tcp",
    "tcp:",
    "tcp:0",
    "tcp:65536",
    "tcp:1x",
    "file:x",
    "line:",
    "x:1",
  ]) {
    assert.throws(() => parseReadyProbe(text), { code: "bad_request", hint: /tcp:PORT/ }, text);
  }
});

test("a target is a host and a port", () => {
  assert.deepEqual(parseTarget("10.42.0.2:8888"), { host: "10.42.0.2", port: 8888 });
  assert.deepEqual(parseTarget("[::1]:80"), { host: "::1", port: 80 });
  for (const text of ["", "host", "host:", ":80", "host:0", "host:99999", "::1:80", "a b:1"]) {
    assert.throws(() => parseTarget(text), { code: "bad_request" }, text);
  }
});

test("a namespace's name never leaves its directory", () => {
  assert.equal(parseNetns("forkd-child-1"), "forkd-child-1");
  for (const text of ["", ".", "..", "a/b", "../x", "a\0b", "a".repeat(65)]) {
    assert.throws(() => parseNetns(text), { code: "bad_request" }, text);
  }
});

test("variables are KEY=VALUE, the last of equal keys wins", () => {
  assert.deepEqual(parseEnvPairs(["A=1", "B=x=y", "C=", "A=2"]), { A: "2", B: "x=y", C: "" });
  for (const text of ["A", "=x", "1A=x", "A-B=x"]) {
    assert.throws(() => parseEnvPairs([text]), { code: "bad_request" }, text);
  }
});

test("a slug of any text fits into a tag", () => {
  assert.equal(slugOf("python:3.12-slim", 40), "python-3-12-slim");
  assert.equal(slugOf("docker://127.0.0.1:5000/a/b:c", 12), "docker-127-0");
  assert.equal(slugOf("///", 40), "image");
  fc.assert(
    fc.property(fc.string(), fc.integer({ min: 1, max: 60 }), (text, lengthMax) => {
      const slug = slugOf(text, lengthMax);
      assert.match(slug, /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/);
      assert.ok(slug === "image" || slug.length <= lengthMax);
    }),
  );
});

test("an option's name is found again as its flag", () => {
  assert.equal(flagOf("memSizeMib"), "--mem-size-mib");
  assert.equal(flagOf("n"), "-n");
});

test("whole numbers are read in their range, and nothing else is a number", () => {
  const range = { min: 1, max: 1000, code: "invalid_count" } as const;
  assert.equal(new Flags({ n: "1000" }).integer("n", range), 1000);
  for (const n of ["0", "1001", "-1", "1.5", "1e2", "0x10", " 1", "NaN", "9".repeat(400)]) {
    assert.throws(() => new Flags({ n }).integer("n", range), { code: "invalid_count" }, n);
  }
});

test("an empty option is an absent one", () => {
  const flags = new Flags({ tag: "", all: true, list: ["a"] });
  assert.equal(flags.text("tag"), undefined);
  assert.throws(() => flags.required("tag"), { code: "bad_request", message: /--tag/ });
  assert.equal(flags.on("all"), true);
  assert.equal(flags.on("nothing"), false);
  assert.deepEqual(flags.list("list"), ["a"]);
  assert.deepEqual(flags.list("nothing"), []);
});

test("imports alone mean a warm Python", () => {
  const warm = parseWarmOptions(new Flags({ import: ["numpy"], warmTimeoutSecs: "120" }));
  assert.equal(warm.runtime, "python");
  assert.deepEqual(warm.imports, ["numpy"]);
  assert.equal(warm.timeoutMs, 120_000);
});

test("a warm-up command and its readiness probe come together", () => {
  const given = (values: object) => (): unknown =>
    parseWarmOptions(new Flags({ warmTimeoutSecs: "1", ...values }));
  assert.throws(given({ warmCmd: "x" }), { message: /needs --ready/ });
  assert.throws(given({ ready: "tcp:1" }), { message: /needs --warm-cmd/ });
  assert.throws(given({ import: Array.from({ length: 65 }, () => "m") }), { code: "bad_request" });
  const both = parseWarmOptions(new Flags({ warmTimeoutSecs: "1", warmCmd: "x", ready: "tcp:1" }));
  assert.deepEqual([both.command, both.ready, both.runtime], ["x", { tcp: 1 }, null]);
});
