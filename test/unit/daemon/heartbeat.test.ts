import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { keepAsking } from "@forkd/host/daemon/heartbeat.ts";
import { WebSocket, WebSocketServer } from "ws";

const everyMs = 50;

/** A server that asks its one client, and that client. */
async function pair(context: TestContext, autoPong: boolean): Promise<WebSocket> {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  context.after(() => server.close());
  await once(server, "listening");
  server.on("connection", (socket) => {
    const stop = keepAsking(socket, everyMs);
    socket.once("close", stop);
  });
  // The cast is what listening on a port makes of the address.
  const { port } = server.address() as AddressInfo;
  const client = new WebSocket(`ws://127.0.0.1:${port}`, { autoPong });
  context.after(() => client.terminate());
  await once(client, "open");
  return client;
}

test("a client that does not answer is gone", async (context) => {
  const client = await pair(context, false);
  const [code] = await once(client, "close");
  assert.equal(code, 1006, "without a word: it would not hear it");
});

test("a client that answers is asked again and again", async (context) => {
  const client = await pair(context, true);
  for (let asked = 0; asked < 4; asked += 1) await once(client, "ping");
  assert.equal(client.readyState, WebSocket.OPEN);
});
