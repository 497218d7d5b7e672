import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { VsockChannel } from "@forkd/host/engine/firecracker/channel.ts";
import { makeTmpDir } from "../../../helpers/tmp.ts";

/** Firecracker's end, in the test's hands. */
async function host(dir: string) {
  const sockets: Socket[] = [];
  const arrived = Promise.withResolvers<Socket>();
  const server: Server = createServer((socket) => {
    sockets.push(socket);
    arrived.resolve(socket);
  });
  const socketPath = join(dir, "v.sock");
  server.listen(socketPath);
  await once(server, "listening");
  return {
    socketPath,
    arrived: arrived.promise,
    count: (): number => sockets.length,
    [Symbol.dispose]: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

const firstData = async (socket: Socket): Promise<string> => `${(await once(socket, "data"))[0]}`;

test("what is written before the guest takes the connection arrives after it, in order", async () => {
  await using tmp = await makeTmpDir("vsock");
  using end = await host(tmp.path);
  const ready = Promise.withResolvers<void>();
  const channel = new VsockChannel({ ...end, port: 1024, ready: ready.promise });
  channel.write("one ");
  channel.write("two ");
  assert.equal(end.count(), 0);
  ready.resolve();
  const socket = await end.arrived;
  assert.equal(await firstData(socket), "CONNECT 1024\n");
  socket.write("OK 107");
  await new Promise((resolve) => setImmediate(resolve));
  socket.write("3741824\nhello");
  channel.write("three");
  assert.equal(String((await once(channel, "data"))[0]), "hello");
  let seen = "";
  for await (const chunk of socket) {
    seen += String(chunk);
    if (seen === "one two three") break;
  }
  channel.destroy();
});

const refusals: Readonly<Record<string, (socket: Socket) => void>> = {
  "ends it": (socket) => socket.destroy(),
  "says something else": (socket) => socket.write("NO\n"),
  "does not end its line": (socket) => socket.write("OK ".padEnd(64, "1")),
};
for (const [what, refuse] of Object.entries(refusals)) {
  test(`an end that ${what} is a channel that breaks`, async () => {
    await using tmp = await makeTmpDir("vsock");
    using end = await host(tmp.path);
    const channel = new VsockChannel({ ...end, port: 1024, ready: Promise.resolve() });
    void end.arrived.then(async (socket) => {
      socket.on("error", () => undefined);
      await once(socket, "data");
      refuse(socket);
    });
    const [error] = await once(channel, "error");
    assert.equal(error.code, "agent_unavailable");
    assert.ok(channel.destroyed);
  });
}

test("no listener is a channel that breaks, and so is a guest that never gets ready", async () => {
  await using tmp = await makeTmpDir("vsock");
  const socketPath = join(tmp.path, "none");
  const channel = new VsockChannel({ socketPath, port: 1024, ready: Promise.resolve() });
  const [error] = await once(channel, "error");
  assert.equal(error.code, "agent_unavailable");
  const dead = Promise.reject(new Error("it died"));
  const other = new VsockChannel({ socketPath, port: 1024, ready: dead });
  assert.match(String((await once(other, "error"))[0]), /it died/);
});

test("a channel that is given up before the guest is ready never connects", async () => {
  await using tmp = await makeTmpDir("vsock");
  using end = await host(tmp.path);
  const ready = Promise.withResolvers<void>();
  const channel = new VsockChannel({ ...end, port: 1024, ready: ready.promise });
  channel.destroy();
  ready.resolve();
  await once(channel, "close");
  assert.equal(end.count(), 0);
});

test("the end of the connection is the end of the channel", async () => {
  await using tmp = await makeTmpDir("vsock");
  using end = await host(tmp.path);
  const channel = new VsockChannel({ ...end, port: 1024, ready: Promise.resolve() });
  channel.resume();
  const socket = await end.arrived;
  await once(socket, "data");
  socket.end("OK 1\nlast words");
  await once(channel, "close");
  assert.ok(channel.destroyed);
});
