import assert from "node:assert/strict";
import { test } from "node:test";
import { frameType } from "@forkd/host/agent/frame.ts";
import { exec, identify, ping } from "@forkd/host/agent/guest.ts";
import { AgentSession, firstAttachToken } from "@forkd/host/agent/session.ts";
import { initialCreditBytes } from "@forkd/host/agent/stream.ts";
import { ScriptedAgent } from "../../helpers/scripted-agent.ts";

type Handler = (agent: ScriptedAgent, op: Record<string, unknown>, stream: number) => void;

/** A session with an agent that answers the hello, and the rest as the test says. */
function attached(handler: Handler): { agent: ScriptedAgent; session: AgentSession } {
  const agent: ScriptedAgent = new ScriptedAgent((op, stream) => {
    if (op["op"] === "hello") agent.answerHello(op);
    else handler(agent, op, stream);
  });
  const session = AgentSession.attach(agent.channel, {
    token: firstAttachToken,
    helloTimeoutMs: 1000,
  });
  return { agent, session };
}

const execRequest = { args: ["x"], timeout_secs: 1, env: {} };
const pong = { pong: true, numpy_version: "1", pid: 1, agent_lang: "c", warmup_ready: true };
const execReply = { exit_code: 0, signal: null, timed_out: false, duration_ms: 1 };

test("the attach begins with the token and hands over the next one", async () => {
  const { agent, session } = attached(() => undefined);
  await session.hello;
  assert.deepEqual(agent.token, firstAttachToken);
  const hello = JSON.parse(String(agent.seen[0]?.payload));
  assert.equal(hello.next_token_b64, session.nextToken.toString("base64"));
});

test("what an older session left in the channel is dropped, half a frame too", async () => {
  const agent: ScriptedAgent = new ScriptedAgent((op) => {
    agent.raw(Buffer.from([200, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3]));
    agent.answerHello(op);
  });
  const session = AgentSession.attach(agent.channel, {
    token: firstAttachToken,
    helloTimeoutMs: 1000,
  });
  assert.equal((await session.hello).agent, "test");
});

test("an agent that floods instead of answering the attach is given up", async () => {
  const agent: ScriptedAgent = new ScriptedAgent(() => {
    for (let i = 0; i < 9; i += 1) agent.raw(Buffer.alloc(1024 * 1024));
  });
  const session = AgentSession.attach(agent.channel, {
    token: firstAttachToken,
    helloTimeoutMs: 5000,
  });
  await assert.rejects(session.hello, { code: "agent_unavailable" });
});

test("a silent agent fails the attach at its deadline, and all that waits with it", async () => {
  const agent = new ScriptedAgent();
  const session = AgentSession.attach(agent.channel, {
    token: firstAttachToken,
    helloTimeoutMs: 20,
  });
  const pong = ping(session, 5000);
  await assert.rejects(session.hello, { code: "deadline_exceeded" });
  await assert.rejects(pong, { code: "deadline_exceeded" });
});

test("an identity answer that lacks a field is no identity", async () => {
  const { session } = attached((agent, _op, stream) =>
    agent.send("reply", stream, { generation: 1 }),
  );
  const request = { generation: 1, hostname: "h", machineId: "0".repeat(32), net: null };
  await assert.rejects(identify(session, request, 1000), { code: "agent_unavailable" });
});

test("output is collected in order", async () => {
  const { session } = attached((agent, op, stream) => {
    if (op["op"] !== "exec") return;
    agent.send("stdout", stream, Buffer.from("one "));
    agent.send("stderr", stream, Buffer.from("bad"));
    agent.send("stdout", stream, Buffer.from("two"));
    agent.send("reply", stream, execReply);
  });
  const result = await exec(session, execRequest);
  assert.equal(result.stdout, "one two");
  assert.equal(result.stderr, "bad");
});

test("credit is given back in pieces, for all that was consumed", async () => {
  const total = 4 * initialCreditBytes;
  const { agent, session } = attached((agent, op, stream) => {
    if (op["op"] !== "exec") return;
    let credit = initialCreditBytes;
    let sent = 0;
    const more = (): void => {
      for (; sent < total && credit >= 1000; sent += 1000, credit -= 1000) {
        agent.send("stdout", stream, Buffer.alloc(1000, 97));
      }
      const granted = windowBytes(agent);
      if (sent >= total) agent.send("reply", stream, execReply);
      else {
        credit = initialCreditBytes + granted - sent;
        setImmediate(more);
      }
    };
    more();
  });
  const { stdout } = await exec(session, execRequest);
  assert.equal(stdout.length, Math.ceil(total / 1000) * 1000);
  const windows = agent.seen.filter((frame) => frame.type === frameType.window);
  assert.ok(windows.length < total / 50_000, `${windows.length} windows`);
});

function windowBytes(agent: ScriptedAgent): number {
  const frames = agent.seen.filter((frame) => frame.type === frameType.window);
  return frames.reduce((sum, frame) => sum + frame.payload.readUInt32LE(0), 0);
}

test("a guest that floods a request which nobody waits for is cut off", async () => {
  const { agent, session } = attached(() => undefined);
  await session.hello;
  const abort = new AbortController();
  const gone = exec(session, execRequest, abort.signal);
  abort.abort(new Error("left"));
  await assert.rejects(gone, { message: "left" });
  const stream = agent.seen.at(-1)?.stream ?? assert.fail();
  for (let sent = 0; sent < 8 * initialCreditBytes; sent += 65_536) {
    agent.send("stdout", stream, Buffer.alloc(65_536));
  }
  assert.match(String(await session.ended), /more than it had credit for/);
});

test("input waits for credit and goes on when it comes", async () => {
  const size = initialCreditBytes + 100;
  let got = 0;
  const { agent, session } = attached((agent, op, stream) => {
    if (op["op"] !== "exec") return;
    setTimeout(() => {
      got = stdinBytes(agent);
      const credit = Buffer.alloc(4);
      credit.writeUInt32LE(1000);
      agent.send("window", stream, credit);
      setTimeout(() => agent.send("reply", stream, execReply), 5);
    }, 5);
  });
  await exec(session, { ...execRequest, stdin: "x".repeat(size) });
  assert.equal(got, initialCreditBytes);
  assert.equal(stdinBytes(agent), size);
});

function stdinBytes(agent: ScriptedAgent): number {
  const frames = agent.seen.filter((frame) => frame.type === frameType.stdin);
  return frames.reduce((sum, frame) => sum + frame.payload.length, 0);
}

test("the agent's refusals keep their meaning", async () => {
  const { session } = attached((agent, _op, stream) => {
    agent.send("error", stream, { code: "not_found", message: "no such program: x" });
  });
  await assert.rejects(exec(session, execRequest), { code: "exec_failed", agentCode: "not_found" });
});

test("a channel that closes fails what waits, and what comes after", async () => {
  const { agent, session } = attached(() => undefined);
  await session.hello;
  const pong = ping(session, 5000);
  agent.channel.destroy();
  await assert.rejects(pong, { code: "agent_unavailable" });
  await assert.rejects(ping(session, 5000), { code: "agent_unavailable" });
});

test("a guest that answers what it was not asked is cut off", async () => {
  const { session } = attached((agent, op) => {
    if (op["op"] === "ping") agent.send("reply", 77, { pong: true });
  });
  await assert.rejects(ping(session, 1000), { message: /a request never made/ });
});

test("a request that is given up may still come to its end", async () => {
  const late: number[] = [];
  const { agent, session } = attached((agent, op, stream) => {
    if (op["op"] === "exec") late.push(stream);
    else agent.send("reply", stream, pong);
  });
  const abort = new AbortController();
  const gone = exec(session, execRequest, abort.signal);
  abort.abort(new Error("left"));
  await assert.rejects(gone, { message: "left" });
  const [stream = assert.fail()] = late;
  const kills = agent.seen.filter((frame) => frame.type === frameType.signal);
  assert.deepEqual(
    kills.map((frame) => [frame.stream, frame.payload.readUInt32LE(0)]),
    [[stream, 9]],
  );
  agent.send("stdout", stream, Buffer.from("late"));
  agent.send("reply", stream, execReply);
  assert.equal((await ping(session, 1000)).pid, 1);
  agent.send("reply", stream, execReply);
  await session.ended;
  assert.match(String(session.failure), /a request never made/);
});

test("a command that nobody waited for is not begun", async () => {
  const { agent, session } = attached(() => undefined);
  await session.hello;
  const reason = new Error("left");
  await assert.rejects(exec(session, execRequest, AbortSignal.abort(reason)), reason);
  assert.equal(agent.seen.length, 1);
});
