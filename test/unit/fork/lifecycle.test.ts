import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { ForkdError, type SandboxState, sandboxStateSchema } from "@forkd/api";
import {
  Lifecycle,
  type SandboxEvent,
  sandboxEvents,
  stateBoundsMs,
  transitions,
} from "@forkd/host/fork/lifecycle.ts";
import fc from "fast-check";

const states = sandboxStateSchema.options;
const unbounded = { starting: null, running: null, branching: null, ending: null, ended: null };

function follow(state: SandboxState, event: SandboxEvent): SandboxState {
  const outcome = transitions[state][event];
  return states.find((each) => each === outcome) ?? state;
}

/** All that `from` can become, with itself. */
function reachable(from: SandboxState, events: readonly SandboxEvent[]): Set<SandboxState> {
  const found = new Set<SandboxState>([from]);
  for (const state of found) for (const event of events) found.add(follow(state, event));
  return found;
}

test("what has begun to end ends, and never comes back", () => {
  assert.deepEqual(reachable("ending", sandboxEvents), new Set(["ending", "ended"]));
  assert.deepEqual(reachable("ended", sandboxEvents), new Set(["ended"]));
  for (const state of states) assert.ok(reachable(state, sandboxEvents).has("ended"), state);
});

test("a kill is never refused and leads to the end from every state", () => {
  for (const state of states) {
    assert.ok(["ending", "ended"].includes(follow(state, "kill")), state);
    assert.ok(!/refuse|bug/.test(transitions[state].kill), state);
  }
});

test("every state that awaits something has a bound, and leaves it when that is over", () => {
  for (const state of states) {
    const isBounded = stateBoundsMs[state] !== null;
    assert.equal(isBounded, ["starting", "branching", "ending"].includes(state), state);
    if (isBounded) assert.notEqual(follow(state, "overdue"), state, state);
    else assert.equal(transitions[state].overdue, "bug", state);
  }
});

test("only a running sandbox is branched; the others say why not", () => {
  const codes = { starting: "sandbox_busy", branching: "sandbox_busy", running: undefined };
  for (const state of states) {
    const code = Object.hasOwn(codes, state) ? codes[state as "running"] : "sandbox_ended";
    const lifecycle = inState(state);
    if (code === undefined) assert.equal(lifecycle.apply("branch"), true);
    else assert.throws(() => lifecycle.apply("branch"), { code });
  }
});

/** The shortest way there. */
const ways: Readonly<Record<SandboxState, readonly SandboxEvent[]>> = {
  starting: [],
  running: ["opened"],
  branching: ["opened", "branch"],
  ending: ["kill"],
  ended: ["kill", "released"],
};

function inState(state: SandboxState): Lifecycle {
  const lifecycle = new Lifecycle({ id: "sb-1", boundsMs: unbounded, onEnter: () => undefined });
  for (const event of ways[state]) lifecycle.apply(event);
  assert.equal(lifecycle.state, state);
  return lifecycle;
}

/** An independent account of the same rules, in the words of docs/lifecycle.md. */
class Model {
  state: SandboxState = "starting";

  /** The code with which the event is refused. */
  apply(event: SandboxEvent): string | undefined {
    const over = this.state === "ending" || this.state === "ended";
    const ends = event === "kill" || event === "died";
    if (event === "branch" && over) return "sandbox_ended";
    if (event === "branch" && this.state !== "running") return "sandbox_busy";
    if (event === "branch") this.state = "branching";
    else if (ends && !over) this.state = "ending";
    else if (event === "opened" && this.state === "starting") this.state = "running";
    else if (event === "failed" && this.state === "starting") this.state = "ending";
    else if (event === "branched" && this.state === "branching") this.state = "running";
    else if (event === "overdue") return this.#overdue();
    else if (event === "released" && over) this.state = "ended";
    else if (["opened", "failed", "released"].includes(event) && !over) return "internal";
    else if (event === "branched" && this.state === "starting") return "internal";
    return undefined;
  }

  #overdue(): string | undefined {
    switch (this.state) {
      case "starting":
        this.state = "ending";
        return undefined;
      case "branching":
        this.state = "running";
        return undefined;
      case "ending":
        this.state = "ended";
        return undefined;
      default:
        return "internal";
    }
  }
}

test("any order of events does what the rules say", () => {
  const events = fc.array(fc.constantFrom(...sandboxEvents), { maxLength: 40 });
  fc.assert(
    fc.property(events, (sequence) => {
      const model = new Model();
      const entered: SandboxState[] = [];
      const onEnter = (state: SandboxState): void => void entered.push(state);
      const lifecycle = new Lifecycle({ id: "sb-1", boundsMs: unbounded, onEnter });
      for (const event of sequence) {
        const before = lifecycle.state;
        const code = model.apply(event);
        const count = entered.length;
        if (code === undefined) {
          assert.equal(lifecycle.apply(event), before !== model.state);
        } else assert.throws(() => lifecycle.apply(event), { code });
        assert.equal(lifecycle.state, model.state, `${before} ${event}`);
        assert.equal(entered.length - count, before === model.state ? 0 : 1);
      }
    }),
    { numRuns: 2_000 },
  );
});

test("a state that lasts too long is left by itself, until it has ended", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const seen: string[] = [];
    const onEnter = (state: SandboxState, event: SandboxEvent): void =>
      void seen.push(`${event}: ${state}`);
    const lifecycle = new Lifecycle({ id: "sb-1", boundsMs: stateBoundsMs, onEnter });
    mock.timers.tick((stateBoundsMs.starting ?? 0) - 1);
    assert.deepEqual(seen, []);
    mock.timers.tick(1);
    mock.timers.tick(stateBoundsMs.ending ?? 0);
    mock.timers.tick(10 ** 9);
    assert.deepEqual(seen, ["overdue: ending", "overdue: ended"]);
    assert.equal(lifecycle.apply("kill"), false);
  } finally {
    mock.timers.reset();
  }
});

test("a branch that takes too long gives the sandbox back", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const lifecycle = new Lifecycle({
      id: "sb-1",
      boundsMs: stateBoundsMs,
      onEnter: () => undefined,
    });
    for (const event of ways.branching) lifecycle.apply(event);
    mock.timers.tick(stateBoundsMs.branching ?? 0);
    assert.equal(lifecycle.state, "running");
    mock.timers.tick(10 ** 9);
    assert.equal(lifecycle.state, "running");
    assert.equal(lifecycle.apply("branched"), false);
  } finally {
    mock.timers.reset();
  }
});

test("what can never happen says that forkd is wrong", () => {
  assert.throws(
    () => inState("running").apply("released"),
    (error) => error instanceof ForkdError && error.code === "internal",
  );
});
