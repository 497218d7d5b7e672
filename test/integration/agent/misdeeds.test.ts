import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { ForkdError } from "@forkd/api";
import { exec, identify, ping } from "@forkd/host/agent/guest.ts";
import { AgentSession, firstAttachToken } from "@forkd/host/agent/session.ts";
import { type Consequence, falseIdentities, misdeeds } from "../../helpers/misdeeds.ts";
import { type Answer, PlayedAgent } from "../../helpers/played-agent.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

/** A session over a real socket with an agent that does what `answers` say. */
async function attach(context: TestContext, answers: Readonly<Record<string, Answer>>) {
  const tmp = await makeTmpDir("misdeeds");
  const path = join(tmp.path, "agent.sock");
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    new PlayedAgent(socket, answers);
  });
  server.listen(path);
  await once(server, "listening");
  const session = AgentSession.attach(connect(path), {
    token: firstAttachToken,
    helloTimeoutMs: 1_000,
  });
  context.after(async () => {
    session.close();
    for (const socket of sockets) socket.destroy();
    server.close();
    await tmp[Symbol.asyncDispose]();
  });
  return session;
}

/** A host that waits for ever fails its test instead of the whole run. */
const patience = { timeout: 20_000 };
const request = { args: ["true"], timeout_secs: 0.001, env: {} };

async function failureOf(work: Promise<unknown>): Promise<ForkdError | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    assert.ok(error instanceof ForkdError, String(error));
    return error;
  }
}

const namesOf = (consequence: Consequence): string[] =>
  Object.keys(misdeeds).filter((name) => misdeeds[name]?.consequence === consequence);

async function suffer(context: TestContext, name: string) {
  const session = await attach(context, { exec: misdeeds[name]?.act ?? assert.fail() });
  await session.hello;
  return { session, failure: await failureOf(exec(session, request)) };
}

for (const name of namesOf("cut")) {
  test(`a guest is cut off for ${name}`, patience, async (context) => {
    const { session, failure } = await suffer(context, name);
    assert.equal((await session.ended).code, "agent_unavailable");
    // An answer before the misdeed counts.
    if (failure !== undefined) assert.equal(failure.code, "agent_unavailable");
    await assert.rejects(ping(session, 5_000), { code: "agent_unavailable" });
  });
}

for (const name of namesOf("refused")) {
  test(`a guest may go on after ${name}`, patience, async (context) => {
    const { session, failure } = await suffer(context, name);
    assert.equal(failure?.code, "agent_unavailable");
    assert.equal((await ping(session, 5_000)).pong, true);
  });
}

test("what never ends is ended by the call's deadline", patience, async (context) => {
  const before = process.memoryUsage().rss;
  await Promise.all(
    namesOf("late").map(async (name) => {
      const { failure } = await suffer(context, name);
      assert.equal(failure?.code, "deadline_exceeded", name);
    }),
  );
  const grownMib = (process.memoryUsage().rss - before) / 1024 / 1024;
  assert.ok(grownMib < 200, `the host grew by ${grownMib} MiB`);
});

for (const [name, answers] of Object.entries(falseIdentities)) {
  test(`a guest with ${name} proves nothing`, async (context) => {
    const session = await attach(context, answers);
    const identity = { generation: 1, hostname: "sb-1", machineId: "a".repeat(32), net: null };
    const work = session.hello.then(() => identify(session, identity, 1_000));
    const failure = await failureOf(work);
    if (failure !== undefined) {
      assert.match(failure.code, /^(agent_unavailable|deadline_exceeded)$/);
      return;
    }
    const proof = await work;
    const told = { generation: 1, hostname: "sb-1", machine_id: "a".repeat(32) };
    assert.notDeepEqual({ ...proof, ...told, crng_reseeded: true }, proof);
  });
}

test("a flood takes no turn from other sessions", async (context) => {
  const flooding = await attach(context, {
    exec: misdeeds["endless output"]?.act ?? assert.fail(),
  });
  const other = await attach(context, {});
  const flooded = failureOf(exec(flooding, { ...request, timeout_secs: 2 }));
  let isOver = false;
  void flooded.then(() => {
    isOver = true;
  });
  let served = 0;
  while (!isOver) {
    await exec(other, request);
    served += 1;
  }
  assert.equal((await flooded)?.code, "deadline_exceeded");
  assert.ok(served > 10, `${served} calls were served`);
});
