import assert from "node:assert/strict";
import crypto from "node:crypto";
import { syncBuiltinESMExports } from "node:module";
import { test } from "node:test";
import { tokenMatcher } from "@forkd/host/daemon/token.ts";

const token = "0123456789abcdef";

test("whatever is offered is compared whole, in constant time, at one length", (context) => {
  const compared: number[][] = [];
  const { timingSafeEqual } = crypto;
  context.mock.method(crypto, "timingSafeEqual", (a: Buffer, b: Buffer) => {
    compared.push([a.length, b.length]);
    return timingSafeEqual(a, b);
  });
  // The importer sees a builtin's change only then.
  syncBuiltinESMExports();
  context.after(() => {
    context.mock.restoreAll();
    syncBuiltinESMExports();
  });
  const matches = tokenMatcher(token);
  const offers = ["", "0", `${token.slice(0, -1)}x`, `x${token.slice(1)}`, token.repeat(9), token];
  assert.deepEqual(offers.map(matches), [false, false, false, false, false, true]);
  assert.deepEqual(
    compared,
    Array.from(offers, () => [32, 32]),
  );
});
