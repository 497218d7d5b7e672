import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError, limits } from "@forkd/api";
import { findVersion, parseHubIndex, parseHubRef } from "@forkd/host/remote/hub-index.ts";
import fc from "fast-check";

const version = { url: "https://host/p", sha256: "a".repeat(64), size_bytes: 5 };
const index = (packages: unknown) => JSON.stringify({ schema_version: 1, packages });

test("reads what upstream's registries hold, and leaves what it does not know", () => {
  const text = JSON.stringify({
    schema_version: 1,
    updated: "2026-01-01",
    packages: {
      "acme/python-numpy": {
        description: "numpy, imported",
        versions: {
          latest: { ...version, memory_mib: 512, recipe_path: "recipes/x", release_tag: "v1" },
          "0.1+b": { url: "https://host/q" },
        },
      },
    },
  });
  const read = parseHubIndex(text, "it");
  const ref = parseHubRef("acme/python-numpy") ?? assert.fail();
  assert.equal(ref.version, "latest");
  assert.equal(findVersion(read, ref).memory_mib, 512);
  assert.equal(findVersion(read, { ...ref, version: "0.1+b" }).sha256, undefined);
  assert.throws(() => findVersion(read, { ...ref, version: "9" }), {
    code: "remote_not_found",
    hint: /latest, 0\.1\+b/,
  });
  assert.throws(() => findVersion(read, { ...ref, owner: "constructor" }), {
    code: "remote_not_found",
  });
});

test("refuses indexes that are none, and says where", () => {
  const many = Object.fromEntries(
    Array.from({ length: limits.hubVersionsMax + 1 }, (_, n) => [`${n}`, version]),
  );
  for (const [text, where] of [
    ["", /no JSON/],
    ["[]", /it: /],
    [JSON.stringify({ schema_version: 2, packages: {} }), /schema_version/],
    [index({ "../x": { versions: {} } }), /packages/],
    [index({ "a/b": { versions: { "../x": version } } }), /versions/],
    [index({ "a/b": { versions: { v: { ...version, sha256: "short" } } } }), /sha256/],
    [index({ "a/b": { versions: { v: { ...version, size_bytes: -1 } } } }), /size_bytes/],
    [index({ "a/b": { versions: { v: { ...version, url: "x".repeat(5000) } } } }), /url/],
    [index({ "a/b": { versions: many } }), /more than \d+ versions/],
  ] as const) {
    assert.throws(() => parseHubIndex(text, "it"), { code: "hub_invalid", message: where }, text);
  }
});

test("never throws anything but hub_invalid", () => {
  const json = fc.oneof(
    fc.json(),
    fc.string(),
    fc.json().map((text) => index(JSON.parse(text))),
  );
  fc.assert(
    fc.property(json, (text) => {
      try {
        parseHubIndex(text, "it");
      } catch (error) {
        assert.ok(error instanceof ForkdError && error.code === "hub_invalid");
      }
    }),
  );
});

test("names of packages are two words, and a version that is one", () => {
  assert.deepEqual(parseHubRef("a/b@1.0"), { owner: "a", name: "b", version: "1.0" });
  for (const text of [
    "a",
    "a/",
    "/b",
    "a/b/c",
    "../b",
    "a/..",
    "a/b@",
    "a/b@c/d",
    "a/b@@",
    "A B/c",
  ]) {
    assert.equal(parseHubRef(text), undefined, text);
  }
});
