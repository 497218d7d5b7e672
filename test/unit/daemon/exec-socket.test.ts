/** The WebSocket of exec streams as a client sees it, over a command that the test plays. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import {
  type ExecEnd,
  type ExecId,
  execSubprotocol,
  ForkdError,
  limits,
  type Problem,
  tokenSubprotocolPrefix,
} from "@forkd/api";
import type { ExecSink, OpenExec } from "@forkd/host/fork/service.ts";
import { WebSocket } from "ws";
import { sampleSandbox } from "../../helpers/fake-service.ts";
import { listenForTest, TestServer } from "../../helpers/test-server.ts";

const id = "sb-1-1";
const execId = "ex-0123456789abcdef" as ExecId;
const done: ExecEnd = { exit_code: 0, signal: null, timed_out: false, duration_ms: 1 };

/** A command of a guest, as far as the daemon can tell. */
class PlayedExec {
  readonly calls: unknown[][] = [];
  readonly opened = Promise.withResolvers<ExecSink>();
  readonly ended = Promise.withResolvers<ExecEnd>();
  readonly left = Promise.withResolvers<string>();
  credited = 0;
  written = 0;
  /** What every write waits for. */
  room: Promise<void> = Promise.resolve();

  open(sink: ExecSink): OpenExec {
    this.opened.resolve(sink);
    const note =
      (name: string) =>
      async (...args: unknown[]): Promise<void> => {
        this.calls.push([name, ...args]);
      };
    const stream: OpenExec["stream"] = {
      id: execId,
      write: async (data) => {
        await this.room;
        this.written += data.length;
      },
      endInput: () => void this.calls.push(["endInput"]),
      credit: (bytes) => {
        this.credited += bytes;
      },
      signal: note("signal"),
      resize: note("resize"),
      leave: async (fate) => this.left.resolve(fate),
    };
    const { promise } = this.ended;
    promise.catch(() => undefined);
    return { stream, ended: promise };
  }

  async started(): Promise<ExecSink> {
    const sink = await this.opened.promise;
    sink.onStarted({ id: execId, pid: 7, tty: false, offset: 0, stdinRoom: 262_144 });
    return sink;
  }
}

/** A client with all that it was told. */
class TestClient {
  readonly messages: Record<string, unknown>[] = [];
  outputBytes = 0;
  readonly socket: WebSocket;
  readonly closed: Promise<number>;

  constructor(socket: WebSocket) {
    this.socket = socket;
    this.closed = once(socket, "close").then(([code]) => code);
    socket.on("error", () => undefined);
    socket.on("message", (data: Buffer, isBinary: boolean) => {
      if (isBinary) this.outputBytes += data.length - 1;
      else this.messages.push(JSON.parse(data.toString()));
    });
  }

  say(message: object): void {
    this.socket.send(JSON.stringify(message));
  }
}

async function serve(context: TestContext, token?: string) {
  const server = new TestServer(token === undefined ? {} : { token });
  const exec = new PlayedExec();
  server.service.sandboxes.set(id, sampleSandbox(id, "base"));
  server.service.execs = {
    ...server.service.execs,
    openExec: async (_, __, sink) => exec.open(sink),
  };
  const port = await listenForTest(server, context);
  const url = `ws://127.0.0.1:${port}/v1/sandboxes/${id}/exec/stream`;
  const connect = async (): Promise<TestClient> => {
    const socket = new WebSocket(url, [execSubprotocol]);
    context.after(() => socket.terminate());
    const client = new TestClient(socket);
    await once(socket, "open");
    return client;
  };
  return { server, exec, port, url, connect };
}

/** The HTTP answer to an upgrade that was refused. */
async function refusal(url: string, options: object, protocols: string[] = [execSubprotocol]) {
  const socket = new WebSocket(url, protocols, options);
  const { promise, resolve, reject } = Promise.withResolvers<{
    status?: number;
    problem: Problem;
  }>();
  socket.on("open", () => reject(new Error("it was accepted")));
  socket.on("error", () => undefined);
  socket.on("unexpected-response", (_request, response) => {
    let text = "";
    response.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    const { statusCode: status } = response;
    response.on("end", () => resolve({ ...(status && { status }), problem: JSON.parse(text) }));
  });
  return await promise.finally(() => socket.terminate());
}

test("an upgrade meets the guards of every request, and is audited", async (context) => {
  const token = "correct-horse-battery-staple";
  const { server, url, port } = await serve(context, token);
  const carrier = tokenSubprotocolPrefix + Buffer.from(token).toString("base64url");
  const ours = { headers: { authorization: `Bearer ${token}` } };
  for (const [options, protocols, status, code] of [
    [{}, [execSubprotocol], 401, "unauthorized"],
    [{}, [execSubprotocol, `${carrier}x`], 401, "unauthorized"],
    [
      { headers: { authorization: "Bearer wrong" } },
      [execSubprotocol, carrier],
      401,
      "unauthorized",
    ],
    [{ headers: { ...ours.headers, host: "evil.example" } }, [execSubprotocol], 403, "forbidden"],
    [{ ...ours, origin: "http://evil.example" }, [execSubprotocol], 403, "forbidden"],
  ] as const) {
    const { problem, ...answer } = await refusal(url, options, [...protocols]);
    assert.deepEqual([answer.status, problem.code], [status, code]);
  }
  const missing = await refusal(url.replace(id, "sb-0-0"), ours);
  assert.deepEqual([missing.status, missing.problem.code], [404, "sandbox_not_found"]);
  const elsewhere = await refusal(`ws://127.0.0.1:${port}/v1/nothing`, ours);
  assert.equal(elsewhere.status, 404);

  const plain = await fetch(url.replace("ws:", "http:"), ours);
  assert.deepEqual(
    [plain.status, ((await plain.json()) as Problem).code],
    [426, "upgrade_required"],
  );
  const h2c = await fetch(`http://127.0.0.1:${port}/version`, ours);
  assert.equal(h2c.status, 200);

  for (const [options, protocols] of [
    [ours, [execSubprotocol]],
    [{}, [execSubprotocol, carrier]],
  ] as const) {
    const socket = new WebSocket(url, [...protocols], options);
    await once(socket, "open");
    assert.equal(socket.protocol, execSubprotocol, "the token is not sent back");
    socket.close();
    await once(socket, "close");
  }
  await new Promise((resolve) => setImmediate(resolve));
  const audited = server.audited.filter(({ status }) => status === 101);
  assert.deepEqual(
    audited.map(({ principal, path }) => [principal, path]),
    Array(2).fill(["token", `/v1/sandboxes/${id}/exec/stream`]),
  );
});

test("output is credited as the socket takes it, or as the client says", async (context) => {
  for (const flow of ["auto", "client"] as const) {
    const { exec, connect } = await serve(context);
    const client = await connect();
    client.say({ type: "start", args: ["x"], flow });
    const sink = await exec.started();
    for (let piece = 0; piece < 4; piece += 1) sink.onOutput(1, Buffer.alloc(32_768));
    while (client.outputBytes < 131_072) await once(client.socket, "message");
    assert.equal(exec.credited, flow === "auto" ? 131_072 : 0);
    if (flow === "client") {
      client.say({ type: "credit", bytes: 100_000 });
      client.say({ type: "credit", bytes: 31_073 });
      assert.equal(await client.closed, 1008, "credit for what was not sent");
      assert.equal(exec.credited, 100_000);
      continue;
    }
    exec.ended.resolve(done);
    assert.equal(await client.closed, 1000);
    assert.deepEqual(client.messages.at(-1), { type: "exit", ...done });
  }
});

test("input is bounded by credit, and signals pass it by", async (context) => {
  const { exec, connect } = await serve(context);
  const client = await connect();
  const blocked = Promise.withResolvers<void>();
  exec.room = blocked.promise;
  client.say({ type: "start", args: ["x"], stdin: true });
  await exec.started();
  const piece = Buffer.alloc(65_537);
  for (let sent = 0; sent < limits.execWindowBytes; sent += 65_536) client.socket.send(piece);
  client.say({ type: "signal", signal: "SIGINT" });
  client.say({ type: "resize", rows: 1, cols: 2 });
  while (exec.calls.length < 2) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(exec.calls[0], ["signal", "SIGINT"]);
  assert.equal(exec.written, 0);
  blocked.resolve();
  client.say({ type: "stdin_end" });
  while (exec.calls.length < 3) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(exec.calls[2], ["endInput"]);
  assert.equal(exec.written, limits.execWindowBytes);
  const credit = () =>
    client.messages.reduce(
      (sum, { type, bytes }) => sum + (type === "credit" ? Number(bytes) : 0),
      0,
    );
  while (credit() < limits.execWindowBytes) await once(client.socket, "message");
  assert.equal(credit(), limits.execWindowBytes);
});

test("what breaks the rules is told so, and its command ends", async (context) => {
  const start = { type: "start", args: ["x"] };
  const cases: readonly [string, readonly (object | string | Buffer)[], number][] = [
    ["no JSON", ["{"], 1008],
    ["no first message", [{ type: "stdin_end" }], 1008],
    ["two first messages", [start, start], 1008],
    ["an unknown kind", [{ type: "nonsense" }], 1008],
    ["a NUL", [{ type: "start", args: ["a\0"] }], 1008],
    ["an unknown channel", [start, Buffer.from([3, 1])], 1008],
    ["an empty binary message", [start, Buffer.alloc(0)], 1008],
    ["too much input", [start, ...Array<Buffer>(5).fill(Buffer.alloc(65_000))], 1008],
    ["input after its end", [start, { type: "stdin_end" }, Buffer.from([0, 1])], 1008],
    ["credit that nobody asked for", [start, { type: "credit", bytes: 1 }], 1008],
    [
      "a flood of signals",
      [start, ...Array<object>(200).fill({ type: "signal", signal: "SIGHUP" })],
      1008,
    ],
    ["too long a message", [start, "x".repeat(limits.execMessageBytesMax + 1)], 1009],
  ];
  for (const [what, words, code] of cases) {
    const { exec, connect } = await serve(context);
    exec.room = new Promise(() => undefined);
    const client = await connect();
    for (const word of words) {
      const isRaw = typeof word === "string" || Buffer.isBuffer(word);
      client.socket.send(isRaw ? word : JSON.stringify(word));
    }
    assert.equal(await client.closed, code, what);
    if (code === 1008) assert.equal(client.messages.at(-1)?.["code"], "bad_request", what);
    if (words[0] === start) assert.equal(await exec.left.promise, "kill", what);
  }
  const { connect } = await serve(context);
  const client = await connect();
  // The library checks what it sends; a broken client does not.
  const raw = (client.socket as unknown as { _socket: { write(bytes: Buffer): void } })._socket;
  raw.write(Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]));
  assert.equal(await client.closed, 1007, "text that is no UTF-8");
});

test("who goes ends the command or leaves it, and a stopping daemon leaves it", async (context) => {
  for (const onClose of ["kill", "keep"]) {
    const { exec, connect } = await serve(context);
    const client = await connect();
    client.say({ type: "start", args: ["x"], on_close: onClose });
    await exec.started();
    client.socket.terminate();
    assert.equal(await exec.left.promise, onClose);
  }
  const { server, exec, connect } = await serve(context);
  const client = await connect();
  client.say({ type: "start", args: ["x"] });
  await exec.started();
  await server.app.close();
  assert.equal(await client.closed, 1012);
  assert.equal(await exec.left.promise, "keep");
});

test("failures of the command are told with code and hint", async (context) => {
  const { exec, connect } = await serve(context);
  const client = await connect();
  client.say({ type: "attach", exec_id: execId });
  await exec.opened.promise;
  exec.ended.reject(new ForkdError("exec_not_found", "no command has the id"));
  assert.equal(await client.closed, 1011);
  const [message] = client.messages;
  assert.deepEqual([message?.["type"], message?.["code"]], ["error", "exec_not_found"]);
  assert.match(String(message?.["hint"]), /forkd execs/);
});
