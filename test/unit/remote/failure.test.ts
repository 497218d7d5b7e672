import assert from "node:assert/strict";
import { test } from "node:test";
import { connectFailure, statusFailure } from "@forkd/host/remote/http-failure.ts";
import { s3Failure } from "@forkd/host/remote/s3-failure.ts";

const coded = (code: string): Error => Object.assign(new Error("no"), { code });

test("what passes is told apart from what does not", () => {
  for (const status of [408, 425, 429, 500, 502, 503, 504]) {
    assert.equal(statusFailure(status, "x").retryable, true, String(status));
  }
  for (const [status, code] of [
    [400, "remote_refused"],
    [401, "remote_refused"],
    [403, "remote_refused"],
    [404, "remote_not_found"],
    [405, "remote_refused"],
    [410, "remote_not_found"],
    [501, "remote_refused"],
  ] as const) {
    const failure = statusFailure(status, "x");
    assert.deepEqual([failure.code, failure.retryable], [code, false], String(status));
  }
});

test("certificates and names that are wrong stay so", () => {
  for (const [code, expected] of [
    ["ECONNREFUSED", "remote_unreachable"],
    ["ECONNRESET", "remote_unreachable"],
    ["EAI_AGAIN", "remote_unreachable"],
    ["ENOTFOUND", "remote_not_found"],
    ["DEPTH_ZERO_SELF_SIGNED_CERT", "remote_refused"],
    ["CERT_HAS_EXPIRED", "remote_refused"],
    ["ERR_TLS_CERT_ALTNAME_INVALID", "remote_refused"],
    ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "remote_refused"],
  ] as const) {
    assert.equal(connectFailure("it", coded(code)).code, expected, code);
  }
});

const aws = (name: string, status?: number, retryAfter?: string): Error =>
  Object.assign(new Error("because"), {
    name,
    ...(status !== undefined && { $metadata: { httpStatusCode: status } }),
    ...(retryAfter !== undefined && { $response: { headers: { "retry-after": retryAfter } } }),
  });

test("a store's failures are ours, with its own words", () => {
  for (const [error, code] of [
    [aws("NoSuchBucket", 404), "remote_not_found"],
    [aws("AccessDenied", 403), "remote_refused"],
    [aws("SignatureDoesNotMatch", 403), "remote_refused"],
    [aws("EntityTooLarge", 400), "remote_refused"],
    [aws("CredentialsProviderError"), "remote_refused"],
    [aws("SlowDown", 503), "remote_unreachable"],
    [aws("InternalError", 500), "remote_unreachable"],
    // A part that was damaged on its way goes again.
    [aws("BadDigest", 400), "remote_unreachable"],
    [aws("XAmzContentSHA256Mismatch", 400), "remote_unreachable"],
    [coded("ECONNRESET"), "remote_unreachable"],
    ["no error at all", "remote_unreachable"],
  ] as const) {
    const failure = s3Failure(error, "s3://b/k");
    assert.equal(failure.code, code, String(error));
    assert.match(failure.message, /s3:\/\/b\/k/);
  }
  assert.equal(s3Failure(aws("SlowDown", 503, "9"), "x").retryAfterSecs, 9);
});
