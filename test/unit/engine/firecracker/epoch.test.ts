import assert from "node:assert/strict";
import { test } from "node:test";
import {
  canDiff,
  type EpochEvent,
  type EpochState,
  epochStates,
  nextEpoch,
} from "@forkd/host/engine/firecracker/epoch.ts";
import fc from "fast-check";

const events: readonly EpochEvent[] = [
  "diff_begun",
  "diff_done",
  "diff_failed",
  "full_taken",
  "adopted",
];

/**
 * A VMM and its pages of changes, as sets of page numbers: the oracle. A failed diff may have done
 * anything between nothing and all of its work.
 */
class Machine {
  readonly changed = new Set<number>();
  readonly pages = new Set<number>();
  readonly #record = new Set<number>();

  write(page: number): void {
    this.changed.add(page);
    this.#record.add(page);
  }

  diff(): void {
    for (const page of this.#record) this.pages.add(page);
    this.#record.clear();
  }

  lose(): void {
    this.#record.clear();
  }

  /** What a diff that is taken now would hold. */
  get known(): Set<number> {
    return new Set([...this.pages, ...this.#record]);
  }
}

const legal: Readonly<Record<EpochState, readonly EpochEvent[]>> = {
  image: ["diff_begun", "full_taken", "adopted"],
  pages: ["diff_begun", "full_taken", "adopted"],
  taking: ["diff_done", "diff_failed", "adopted"],
  lost: ["full_taken", "adopted"],
};

test("an event that cannot happen in a state is a bug, and all others are defined", () => {
  for (const state of epochStates) {
    for (const event of events) {
      if (legal[state].includes(event)) assert.ok(epochStates.includes(nextEpoch(state, event)));
      else assert.throws(() => nextEpoch(state, event), /cannot happen/);
    }
  }
});

test("a lost record stays lost: no later event makes a diff right again", () => {
  for (const event of legal.lost) assert.equal(nextEpoch("lost", event), "lost");
});

test("whenever a diff may be taken, it holds every page that differs from the image", () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("write" as const), page: fc.nat(20) }),
    fc.record({ do: fc.constantFrom("diff", "fail", "vanish", "full", "adopt") }),
  );
  const property = fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const machine = new Machine();
    const now: { state: EpochState } = { state: "image" };
    const happen = (event: EpochEvent): void => {
      now.state = nextEpoch(now.state, event);
    };
    for (const one of steps) {
      if (one.do === "write" && "page" in one) machine.write(one.page);
      if (one.do === "full") {
        happen("full_taken");
        machine.lose();
      }
      if (one.do === "adopt") happen("adopted");
      if (["diff", "fail", "vanish"].includes(one.do) && canDiff(now.state)) {
        happen("diff_begun");
        if (one.do === "diff") {
          machine.diff();
          happen("diff_done");
        }
        if (one.do === "fail") {
          machine.lose();
          happen("diff_failed");
        }
        if (one.do === "vanish") {
          // The owner dies while Firecracker works: the next one adopts.
          machine.lose();
          happen("adopted");
        }
      }
      if (canDiff(now.state))
        assert.deepEqual([...machine.changed].sort(), [...machine.known].sort());
    }
  });
  fc.assert(property, { numRuns: 500 });
});
