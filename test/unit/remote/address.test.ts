import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePullTarget, parseRemote } from "@forkd/host/remote/address.ts";
import { plainReason } from "@forkd/host/remote/http-failure.ts";
import { parseS3Address } from "@forkd/host/remote/s3-address.ts";

test("remotes are http addresses and objects of S3", () => {
  assert.equal(parseRemote("https://host/a?b=c").kind, "http");
  assert.deepEqual(parseRemote("s3://bucket/a/b.zst"), {
    kind: "s3",
    address: { bucket: "bucket", key: "a/b.zst" },
  });
  assert.equal(parsePullTarget("acme/x@1").kind, "hub");
  for (const text of ["file:///etc/passwd", "ftp://h/x", "host/a/b", "", "s3://B/x", "s3://b"]) {
    assert.throws(() => parseRemote(text), { code: "bad_request" }, text);
  }
  for (const text of ["s3://bucket/", "s3://bucket/dir/", "s3://../x", "s3://bucket/a b"]) {
    assert.equal(parseS3Address(text), undefined, text);
  }
});

test("an address that is refused is shown without its secret", () => {
  assert.throws(
    () => parseRemote("htps://host/x?X-Amz-Signature=secret"),
    (error: Error) => !error.message.includes("secret") && error.message.includes("htps://host/x"),
  );
});

test("reasons in answers are one plain line", () => {
  const xml = "<?xml?><Error><Code>AccessDenied</Code><Message>No\nway</Message></Error>";
  assert.equal(plainReason(xml), "AccessDenied: No way");
  assert.equal(plainReason("<html><b>Not \u001b[31mhere</b></html>"), "Not [31mhere");
  assert.ok(plainReason("x".repeat(5000)).length <= 160);
});
