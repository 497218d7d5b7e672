/** Parsers of what tools and images say, and the arithmetic of an image's size. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { cacheKey } from "@forkd/host/image/cache.ts";
import { planImageBytes } from "@forkd/host/image/ext4.ts";
import { parseImageConfig, plainConfig } from "@forkd/host/image/oci-config.ts";
import { reword } from "@forkd/host/image/tools.ts";
import { metaPackageFor, parseCandidates, parseKernelPackages } from "@forkd/host/kernel/apt.ts";

test("an image's configuration is read", () => {
  const config = { Env: ["A=1", "B=x=y", "C", "D="], User: "u:g", WorkingDir: "srv", Cmd: ["c"] };
  assert.deepEqual(parseImageConfig(JSON.stringify({ config })), {
    env: { A: "1", B: "x=y", C: "", D: "" },
    user: "u:g",
    workdir: "/srv",
    cmd: ["c"],
    entrypoint: [],
  });
});

test("an image that says nothing gets a plain environment", () => {
  for (const text of ["{}", '{"config":null}', '{"config":{"Env":null,"Cmd":null}}']) {
    assert.deepEqual(parseImageConfig(text), plainConfig, text);
  }
});

test("malformed and oversized configurations are refused", () => {
  const texts = [
    "",
    "[]",
    "null",
    '{"config":{"Env":"A=1"}}',
    '{"config":{"Env":["=x"]}}',
    '{"config":{"Env":[null]}}',
    '{"config":{"User":7}}',
    '{"config":{"Cmd":[["a"]]}}',
    JSON.stringify({ config: { Env: ["A=\0"] } }),
    JSON.stringify({ config: { Env: Array.from({ length: 2000 }, (_, i) => `V${i}=1`) } }),
    JSON.stringify({ config: { WorkingDir: "x".repeat(200_000) } }),
  ];
  for (const text of texts) {
    assert.throws(() => parseImageConfig(text), { code: "image_invalid" }, text.slice(0, 60));
  }
});

test("a variable named __proto__ is a variable", () => {
  const { env } = parseImageConfig('{"config":{"Env":["__proto__=x"]}}');
  assert.deepEqual(Object.entries(env), [["__proto__", "x"]]);
});

test("the distribution decides which kernel package", () => {
  assert.equal(metaPackageFor("NAME=x\nID=debian\n"), "linux-image-cloud-amd64");
  assert.equal(metaPackageFor('ID="ubuntu"\nID_LIKE=debian\n'), "linux-image-virtual");
  assert.equal(metaPackageFor('ID=mint\nID_LIKE="ubuntu debian"\n'), "linux-image-virtual");
  assert.throws(() => metaPackageFor("ID=other\n"), { code: "kernel_not_found" });
  assert.throws(() => metaPackageFor(""), { code: "kernel_not_found" });
});

test("kernel packages are picked from all dependencies", () => {
  const debian = [
    "linux-image-cloud-amd64",
    "  Depends: linux-image-6.1.0-56-cloud-amd64",
    "linux-image-6.1.0-56-cloud-amd64",
    "  Depends: kmod",
    " |Depends: initramfs-tools",
    "  Depends: <linux-initramfs-tool>",
  ].join("\n");
  assert.deepEqual(parseKernelPackages(debian), ["linux-image-6.1.0-56-cloud-amd64"]);
  const ubuntu = [
    "linux-image-virtual",
    "  Depends: linux-image-6.8.0-60-generic",
    "linux-image-6.8.0-60-generic",
    "  Depends: linux-modules-6.8.0-60-generic",
    "  Depends: linux-base",
  ].join("\n");
  assert.deepEqual(parseKernelPackages(ubuntu), [
    "linux-image-6.8.0-60-generic",
    "linux-modules-6.8.0-60-generic",
  ]);
});

test("candidates are read, packages without one are left out", () => {
  const policy = [
    "linux-image-1:",
    "  Installed: (none)",
    "  Candidate: 6.1.2-3+b1",
    "  Version table:",
    "linux-modules-1:",
    "  Installed: (none)",
    "  Candidate: (none)",
  ].join("\n");
  assert.deepEqual(parseCandidates(policy), ["linux-image-1=6.1.2-3+b1"]);
});

test("an image has room for its tree, in whole MiB", () => {
  for (const [bytes, inodes] of [
    [0, 1],
    [10 ** 9, 10],
    [10 ** 6, 200_000],
  ] as const) {
    const planned = planImageBytes({ bytes, inodes });
    assert.ok(planned > bytes + inodes * (4096 + 256));
    assert.equal(planned % (1024 * 1024), 0);
  }
});

test("the cache key changes with each input", () => {
  const base = { source: "a", packages: ["p"], sizeMib: null };
  const keys = [
    base,
    { ...base, source: "b" },
    { ...base, packages: [] },
    { ...base, packages: ["p", "q"] },
    { ...base, sizeMib: 64 },
  ].map(cacheKey);
  assert.equal(new Set(keys).size, keys.length);
});

test("a tool's failure is reworded by what it said, others are passed on", () => {
  const rules = [{ words: /no such image/, code: "image_not_found" as const, message: "absent" }];
  const go = 'skopeo exited with 1: time="x" level=fatal msg="no such image \\"a\\""';
  const failure = reword(new ForkdError("tool_failed", go), rules);
  assert.ok(failure instanceof ForkdError);
  assert.equal(failure.code, "image_not_found");
  assert.equal(failure.message, 'absent: no such image "a"');
  const words = "x exited with 1: E: no such image b\nE: giving up";
  const early = reword(new ForkdError("tool_failed", words), rules);
  assert.ok(early instanceof ForkdError);
  assert.equal(early.message, "absent: x exited with 1: E: no such image b");
  const other = new ForkdError("disk_full", "no such image");
  assert.equal(reword(other, rules), other);
  const aborted = new DOMException("stop", "AbortError");
  assert.equal(reword(aborted, rules), aborted);
});
