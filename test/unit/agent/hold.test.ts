import assert from "node:assert/strict";
import { test } from "node:test";
import { hold, holdLeftMsMin, requireHeld, thaw } from "@forkd/host/agent/hold.ts";
import { AgentError } from "@forkd/host/agent/messages.ts";
import { AgentSession, firstAttachToken } from "@forkd/host/agent/session.ts";
import { ScriptedAgent } from "../../helpers/scripted-agent.ts";

/** A session with an agent that answers every request but the hello with `answer`. */
function attached(
  type: "reply" | "error",
  answer: object,
): { ops: object[]; session: AgentSession } {
  const ops: object[] = [];
  const agent: ScriptedAgent = new ScriptedAgent((op, stream) => {
    if (op["op"] === "hello") return agent.answerHello(op);
    ops.push(op);
    agent.send(type, stream, answer);
  });
  const options = { token: firstAttachToken, helloTimeoutMs: 1000 };
  return { ops, session: AgentSession.attach(agent.channel, options) };
}

test("a hold is asked for with its bound", async () => {
  const { ops, session } = attached("reply", {});
  await hold(session, 30_000);
  assert.deepEqual(ops, [{ op: "hold", max_ms: 30_000 }]);
});

test("a guest that cannot stop its processes says so with its own code", async () => {
  const { session } = attached("error", { code: "hold_failed", message: "no freezer" });
  const failure: unknown = await hold(session, 30_000).catch((error: unknown) => error);
  assert.ok(failure instanceof AgentError);
  assert.equal(failure.agentCode, "hold_failed");
  assert.equal(failure.code, "engine_failed");
});

test("a thaw gives what was left of the hold", async () => {
  const { ops, session } = attached("reply", { hold_left_ms: 12_345 });
  assert.equal(await thaw(session), 12_345);
  assert.deepEqual(ops, [{ op: "thaw" }]);
});

test("an answer without what was left is no thaw", async () => {
  const { session } = attached("reply", {});
  await assert.rejects(thaw(session), { code: "agent_unavailable" });
});

test("a capture whose hold was over, or nearly, is refused", () => {
  requireHeld(holdLeftMsMin);
  assert.throws(() => requireHeld(holdLeftMsMin - 1), { code: "agent_unavailable" });
  assert.throws(() => requireHeld(0), { code: "agent_unavailable" });
});

test("an agent that does not know of holds is one that holds nothing", async () => {
  const { session } = attached("reply", {});
  assert.equal((await session.hello).held, false);
});
