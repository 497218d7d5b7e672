import assert from "node:assert/strict";
import type { Client } from "@forkd/sdk";

const asksMax = 60;

/**
 * Proves that the wall clock of a guest with a warm Python is within `boundMs` of the host's. The
 * time lies between the call and its answer: each ask bounds the error from both sides, and all
 * bounds hold together.
 */
export async function requireClock(client: Client, id: string, boundMs: number): Promise<void> {
  let [least, most] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let ask = 0; ask < asksMax; ask += 1) {
    const before = performance.timeOrigin + performance.now();
    const { result } = await client.evalSandbox({
      params: { id },
      body: { code: "__import__('time').time() * 1000", timeout_secs: 30 },
    });
    const after = performance.timeOrigin + performance.now();
    least = Math.max(least, Number(result) - after);
    most = Math.min(most, Number(result) - before);
    const said = `the clock of ${id} is wrong by ${least} to ${most} ms`;
    assert.ok(least <= boundMs && most >= -boundMs, said);
    if (least >= -boundMs && most <= boundMs) return;
  }
  assert.fail(`the clock of ${id} is wrong by ${least} to ${most} ms, after ${asksMax} asks`);
}
