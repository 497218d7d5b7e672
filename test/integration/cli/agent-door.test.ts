/** The TCP door that `forkd fork` opens for an only child: its protocol, and who is let in. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { type ExecRequest, ForkdError } from "@forkd/api";
import { type DoorGuest, openAgentDoor } from "@forkd/host/cli/agent-door.ts";
import { FakeService } from "../../helpers/fake-service.ts";

const service = new FakeService();
const [spawned] = await service.spawn({ tag: "base", count: 1 } as never);
const id = spawned?.info.id ?? assert.fail();

const guest = (fields: Partial<DoorGuest> = {}): DoorGuest => ({
  ping: async () => ({ ...(await service.ping(id)), agent_lang: "python" }),
  exec: (request) => service.exec(id, request),
  eval: (request) => service.eval(id, request),
  ...fields,
});

let port = 20_000 + (process.pid % 20_000);

async function openDoor(fields: Partial<DoorGuest> = {}) {
  for (;;) {
    port += 1;
    const target = { host: "127.0.0.1", port };
    try {
      return { target, door: await openAgentDoor(target, guest(fields)) };
    } catch (error) {
      if (!(error instanceof ForkdError) || error.code !== "address_in_use") throw error;
    }
  }
}

/** What a client sends, and the line that it gets. */
async function exchange(bytes: string, halfClose = true): Promise<Record<string, unknown>> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  if (halfClose) socket.end(bytes);
  else socket.write(bytes);
  const answer = await text(socket);
  socket.destroy();
  assert.equal(answer.split("\n").length, 2, "one line");
  return JSON.parse(answer);
}

const ask = (request: object) => exchange(`${JSON.stringify(request)}\n`);

test("ping, exec and eval, as the guest's own door answers them", async () => {
  let asked: ExecRequest | undefined;
  const { door } = await openDoor({
    exec: (request) => {
      asked = request;
      return service.exec(id, request);
    },
  });
  assert.equal((await ask({ action: "ping" }))["pong"], true);
  const ran = await ask({ action: "exec", args: ["a", "b"], timeout: 7 });
  assert.deepEqual([ran["stdout"], ran["stderr"], ran["exit_code"]], ["a b\n", "", 0]);
  assert.deepEqual(asked, { args: ["a", "b"], timeout_secs: 7, env: {} });
  await ask({ action: "exec", args: ["a"] });
  assert.equal(asked?.timeout_secs, 30);
  assert.deepEqual(await ask({ action: "eval", code: "1+1" }), { result: "1+1", exit_code: 0 });
  await door[Symbol.asyncDispose]();
});

test("a line without its end is whole when the client half-closes, and the other way", async () => {
  const { door } = await openDoor();
  assert.equal((await exchange('{"action":"ping"}'))["pong"], true);
  assert.equal((await exchange('{"action":"ping"}\n', false))["pong"], true);
  await door[Symbol.asyncDispose]();
});

test("Node's results are JSON, Python's are texts, a failure has both its names", async () => {
  const answer = {
    ...{ result: "{}", result_json: "{}", stdout: "", stderr: "", error: null, traceback: null },
    ...{ exit_code: 0, timed_out: false, duration_ms: 1 },
  };
  const evaluate = async () => answer;
  const python = await openDoor({ eval: evaluate });
  assert.equal("result_json" in (await ask({ action: "eval", code: "x" })), false);
  await python.door[Symbol.asyncDispose]();
  const ping = async () => ({ ...(await service.ping(id)), agent_lang: "node" });
  const failed = { ...answer, error: "E: x", traceback: "tb", exit_code: 1 };
  const node = await openDoor({
    ping,
    eval: async ({ code }) => (code === "fail" ? failed : answer),
  });
  assert.equal((await ask({ action: "eval", code: "x" }))["result_json"], "{}");
  const broken = await ask({ action: "eval", code: "fail" });
  assert.deepEqual(broken, { error: "E: x", traceback: "tb", stack: "tb", exit_code: 1 });
  await node.door[Symbol.asyncDispose]();
});

test("what is no request is told, and what the guest refuses", async () => {
  const { door } = await openDoor({
    exec: async () => {
      throw new ForkdError("exec_failed", "no such program");
    },
  });
  for (const bytes of ["", "{", "[]\n", "\0\n", '{"action":"nope"}\n', '{"action":"exec"}\n']) {
    const answer = await exchange(bytes);
    assert.equal(answer["exit_code"], 1, bytes);
    assert.equal(typeof answer["error"], "string", bytes);
  }
  for (const args of [[], "ls", [1]]) {
    assert.equal((await ask({ action: "exec", args }))["exit_code"], 1);
  }
  const refused = await ask({ action: "exec", args: ["x"] });
  assert.deepEqual(refused, { error: "no such program", exit_code: 1 });
  await door[Symbol.asyncDispose]();
});

test("a request without an end is refused at the bound", async () => {
  const { door } = await openDoor();
  const answer = await exchange("x".repeat(1024 * 1024 + 70_000));
  assert.match(String(answer["error"]), /too long/);
  await door[Symbol.asyncDispose]();
});

test("a client that goes away disturbs nobody", async () => {
  const { promise: held, resolve } = Promise.withResolvers<void>();
  const { door } = await openDoor({
    exec: async (request) => {
      await held;
      return service.exec(id, request);
    },
  });
  const socket = connect(port, "127.0.0.1");
  socket.write('{"action":"exec","args":["x"]}\n');
  socket.resetAndDestroy();
  resolve();
  assert.equal((await ask({ action: "ping" }))["pong"], true);
  await door[Symbol.asyncDispose]();
  await assert.rejects(exchange("{}\n"), { code: "ECONNREFUSED" });
});

test("only addresses of the loopback interface are served", async () => {
  for (const host of ["0.0.0.0", "::", "192.0.2.1", "example.org"]) {
    await assert.rejects(openAgentDoor({ host, port: 8888 }, guest()), { code: "bad_request" });
  }
});

test("an address that another program has is told", async () => {
  const { target, door } = await openDoor();
  await assert.rejects(openAgentDoor(target, guest()), { code: "address_in_use" });
  await door[Symbol.asyncDispose]();
});
