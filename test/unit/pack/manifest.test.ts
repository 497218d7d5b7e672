import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { memberPath, parseMember, parsePackManifest } from "@forkd/host/pack/manifest.ts";
import fc from "fast-check";

const isRefusal = (error: unknown): boolean =>
  error instanceof ForkdError && error.code === "pack_invalid" && error.message.length < 2200;

test("paths mean members, and nothing else does", () => {
  const hash = "a".repeat(64);
  const paths = [
    ...["snapshot.json", "memory.diff", "scratch.31"].map((name) => `snapshots/t-1/${name}`),
    ...[`images/${hash}.img`, `images/${hash}.json`, `boot/${hash}`],
  ];
  for (const path of paths) {
    const member = parseMember(path);
    assert.ok(member, path);
    assert.equal(memberPath(member), path);
  }
  const others = [
    "",
    "/",
    "snapshots",
    "snapshots/t",
    "snapshots//vmstate",
    "snapshots/../vmstate",
  ];
  const more = [
    "snapshots/t/vmstate/",
    "snapshots/.t/vmstate",
    `boot/${hash}.img`,
    `boot/${hash}/`,
  ];
  for (const path of [...others, ...more, `images/${hash}`, `/boot/${hash}`]) {
    assert.equal(parseMember(path), undefined, path);
  }
});

test("a path that is read as a member is the member's own", () => {
  const part = fc.constantFrom("snapshots", "images", "boot", "..", ".", "", "t", "vmstate", "~");
  fc.assert(
    fc.property(fc.array(part, { maxLength: 5 }), (parts) => {
      const path = parts.join("/");
      const member = parseMember(path);
      assert.ok(member === undefined || memberPath(member) === path, path);
    }),
  );
});

test("whatever is no manifest is refused with few words", () => {
  const deep = `forkd_pack_version = 3\nx = ${"[".repeat(100_000)}`;
  const many = `forkd_pack_version = 3\n${"[[files]]\npath = 1\n".repeat(5000)}`;
  for (const text of ["", "x", deep, many, "forkd_pack_version = '3'", "[__proto__]\na = 1"]) {
    assert.throws(() => parsePackManifest(text), isRefusal);
  }
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (text) => {
      assert.throws(() => parsePackManifest(text), isRefusal);
    }),
  );
});
