import assert from "node:assert/strict";
import { test } from "node:test";
import { exitCodeFor, guestExitCode } from "@forkd/host/cli/exit.ts";

test("each way to end has its exit code", () => {
  assert.equal(exitCodeFor({ kind: "done", code: 0 }), 0);
  assert.equal(exitCodeFor({ kind: "done", code: 42 }), 42);
  assert.equal(exitCodeFor({ kind: "usage" }), 2);
  assert.equal(exitCodeFor({ kind: "failed" }), 1);
  assert.equal(exitCodeFor({ kind: "stopped", signal: "SIGINT" }), 130);
  assert.equal(exitCodeFor({ kind: "stopped", signal: "SIGTERM" }), 143);
  assert.equal(exitCodeFor({ kind: "stopped", signal: "SIGHUP" }), 129);
});

test("a guest command's end becomes our exit code", () => {
  const end = { exitCode: 0, timedOut: false, error: null };
  assert.equal(guestExitCode(end), 0);
  assert.equal(guestExitCode({ ...end, exitCode: 7 }), 7);
  assert.equal(guestExitCode({ ...end, exitCode: -9 }), 137);
  assert.equal(guestExitCode({ ...end, exitCode: -9, timedOut: true }), 124);
  assert.equal(guestExitCode({ ...end, error: "no such program" }), 1);
  assert.equal(guestExitCode({ ...end, exitCode: 127, error: "no such program" }), 127);
});
