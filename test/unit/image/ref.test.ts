import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { type ImageRef, parseImageRef, parsePackages } from "@forkd/host/image/ref.ts";
import fc from "fast-check";

const registry = (name: string, loopback = false): ImageRef => ({
  kind: "registry",
  name,
  loopback,
});
const digest = `sha256:${"0".repeat(64)}`;

const good: readonly (readonly [string, ImageRef])[] = [
  ["python:3.12-slim", registry("python:3.12-slim")],
  ["python", registry("python")],
  ["docker://quay.io/a/b:c", registry("quay.io/a/b:c")],
  ["docker:24-dind", registry("docker:24-dind")],
  ["ghcr.io/a/b__c/d-e.f", registry("ghcr.io/a/b__c/d-e.f")],
  [`team/app@${digest}`, registry(`team/app@${digest}`)],
  ["127.0.0.1:5000/app:1", registry("127.0.0.1:5000/app:1", true)],
  ["localhost:5000/app", registry("localhost:5000/app", true)],
  ["docker://[::1]:5000/app", registry("[::1]:5000/app", true)],
  ["127.0.0.1.example.org/app", registry("127.0.0.1.example.org/app")],
  ["localhost.example.org:5000/app", registry("localhost.example.org:5000/app")],
  ["debian:bookworm", { kind: "debian", suite: "bookworm" }],
  ["debian:sid", { kind: "debian", suite: "sid" }],
  ["debian:12-slim", registry("debian:12-slim")],
  ["oci:images/app", { kind: "oci", dir: "/home/u/images/app", tag: null }],
  ["oci:/images/app:1.0", { kind: "oci", dir: "/images/app", tag: "1.0" }],
  ["docker-archive:a.tar", { kind: "docker-archive", file: "/home/u/a.tar", tag: null }],
  ["tar:../a.tar.gz", { kind: "tar", file: "/home/a.tar.gz" }],
  ["dir:/srv/root", { kind: "dir", dir: "/srv/root" }],
];

for (const [text, ref] of good) {
  test(`${text} is read`, () => {
    assert.deepEqual(parseImageRef(text, "/home/u"), ref);
  });
}

const bad = [
  "",
  "Upper/Case",
  "a b",
  "name:",
  ":tag",
  "name:tag:tag",
  "-option",
  "--option",
  "docker://",
  "docker://-x/y",
  "http://host/name",
  "name@sha256:short",
  "oci:",
  "oci:dir:ta g",
  "oci:dir:a:b",
  "tar:",
  "dir:",
  "debian:",
  "name\0:x",
  "a/../b",
  `${"a".repeat(2000)}`,
];

for (const text of bad) {
  test(`${JSON.stringify(text.slice(0, 30))} is refused with the forms that exist`, () => {
    assert.throws(() => parseImageRef(text, "/"), { code: "image_invalid", hint: /debian:SUITE/ });
  });
}

test("no text is read as an option of a program, or breaks the parser", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        const ref = parseImageRef(text, "/");
        if (ref.kind === "registry") assert.doesNotMatch(ref.name, /^-|[\s\0]/);
      } catch (error) {
        assert.ok(error instanceof ForkdError);
      }
    }),
  );
});

test("package names are sorted, once each", () => {
  const names = ["python3-numpy", "g++", "R", "libc6=2.36-9", "g++"];
  assert.deepEqual(parsePackages(names), ["R", "g++", "libc6=2.36-9", "python3-numpy"]);
});

test("package names with another meaning are refused", () => {
  for (const name of [
    "-y",
    "a,b",
    "a b",
    "../a.deb",
    "./a.deb",
    "/a.deb",
    "gone-",
    "?x",
    "",
    "a;b",
  ]) {
    assert.throws(() => parsePackages([name]), { code: "image_invalid" }, name);
  }
  const many = Array.from({ length: 201 }, (_, index) => `p${index}`);
  assert.throws(() => parsePackages(many), { code: "image_invalid" });
});
