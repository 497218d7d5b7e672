import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ForkdError,
  isErrorCode,
  parseSandboxId,
  parseSnapshotTag,
  routePath,
  routes,
  toForkdError,
} from "@forkd/api";
import fc from "fast-check";

test("a tag is one harmless path segment", () => {
  for (const tag of ["a", "_x", "python-3.12", "A".repeat(64)]) {
    assert.equal(parseSnapshotTag(tag), tag);
  }
  for (const tag of ["", ".", "..", "-a", ".a", "a/b", "a\\b", "a\n", "é", "a".repeat(65), "a\0"]) {
    assert.throws(() => parseSnapshotTag(tag), { code: "invalid_tag" }, JSON.stringify(tag));
  }
});

test("whatever passes as a tag or an id stays where it is put", () => {
  const isHarmless = (text: string): boolean => /^[A-Za-z0-9._-]+$/.test(text) && !/^\./.test(text);
  fc.assert(
    fc.property(fc.string(), (text) => {
      for (const parse of [parseSnapshotTag, parseSandboxId]) {
        try {
          assert.ok(isHarmless(parse(text)));
        } catch (error) {
          assert.ok(error instanceof ForkdError, String(error));
        }
      }
    }),
  );
});

test("a parameter never changes a path's shape", () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1 }), (id) => {
      fc.pre(!/^\.{1,2}$/.test(id) && id.isWellFormed());
      const url = new URL(routePath(routes.execSandbox, { id }), "http://localhost");
      assert.equal(url.pathname.split("/").length, 5);
      assert.ok(url.pathname.endsWith("/exec") && url.search === "" && url.hash === "");
    }),
  );
  for (const id of ["", ".", ".."]) {
    assert.throws(() => routePath(routes.getSandbox, { id }), { code: "bad_request" });
  }
});

test("anything thrown becomes one kind of error and keeps its cause", () => {
  const known = new ForkdError("busy", "later");
  assert.equal(toForkdError(known), known);
  const full = toForkdError(Object.assign(new Error("x"), { code: "ENOSPC" }));
  assert.deepEqual([full.code, full.status, full.retryable], ["disk_full", 507, true]);
  for (const thrown of ["text", undefined, null, 7, { code: 3 }]) {
    const error = toForkdError(thrown);
    assert.deepEqual([error.code, error.cause], ["internal", thrown]);
  }
  assert.equal(known.within("spawn").message, "spawn: later");
  assert.ok(!isErrorCode("toString") && isErrorCode("busy"));
});
