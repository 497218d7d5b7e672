import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { branchRequestSchema, ForkdError } from "@forkd/api";
import { requireParent, resolveBranchOptions } from "@forkd/host/fork/branch-options.ts";

const resolve = (body: object) => resolveBranchOptions(branchRequestSchema.parse(body));
const badRequest = (words: RegExp) => (error: unknown) =>
  error instanceof ForkdError && error.code === "bad_request" && words.test(error.message);

describe("the options of a branch", () => {
  test("an empty body is a full branch that is waited for", () => {
    const { mode, wait, measureDiff } = resolve({});
    assert.deepEqual({ mode, wait, measureDiff }, { mode: "full", wait: true, measureDiff: false });
  });

  test("each boolean chooses its mode, and so does mode alone", () => {
    assert.equal(resolve({ diff: true }).mode, "diff");
    assert.equal(resolve({ live: true }).mode, "live");
    assert.equal(resolve({ measure_diff: true }).mode, "full");
    assert.equal(resolve({ mode: "diff", diff: false }).mode, "diff");
  });

  test("mode with a true boolean is refused before anything else", () => {
    assert.throws(
      () => resolve({ mode: "diff", diff: true, live: true, wait: false }),
      badRequest(/mode cannot/),
    );
  });

  test("two booleans are refused before wait is looked at", () => {
    assert.throws(
      () => resolve({ diff: true, measure_diff: true, wait: false }),
      badRequest(/only one of/),
    );
  });

  test("only a live branch need not be waited for", () => {
    assert.equal(resolve({ mode: "live", wait: false }).wait, false);
    assert.throws(() => resolve({ diff: true, wait: false }), badRequest(/wait/));
  });

  test("a parent is the sandbox's own snapshot, named for a diff", () => {
    const body = branchRequestSchema.parse({ parent_tag: "base" });
    assert.doesNotThrow(() => requireParent(body, "diff", "base"));
    assert.throws(() => requireParent(body, "diff", "other"), badRequest(/'base'.*'other'/));
    assert.throws(() => requireParent(body, "full", "base"), badRequest(/parent_tag.*diff/));
  });
});
