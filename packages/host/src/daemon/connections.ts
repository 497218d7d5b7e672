import type { Socket } from "node:net";
import type { FastifyInstance } from "fastify";
import { onAnswered } from "./answered.ts";

/**
 * Closes connections without a request in flight as soon as the server stops. Node itself stops to
 * look for slow clients then, so one silent connection would hold up the whole drain.
 */
export function installIdleClose(app: FastifyInstance, hasTls: boolean): void {
  const requestsInFlight = new Map<Socket, number>();
  let isClosing = false;
  const count = (socket: Socket, change: number): void => {
    const before = requestsInFlight.get(socket);
    if (before !== undefined) requestsInFlight.set(socket, before + change);
  };
  app.server.on(hasTls ? "secureConnection" : "connection", (socket: Socket) => {
    if (isClosing) {
      socket.destroy();
      return;
    }
    requestsInFlight.set(socket, 0);
    socket.once("close", () => requestsInFlight.delete(socket));
  });
  app.addHook("onRequest", async (request) => count(request.raw.socket, 1));
  onAnswered(app, ({ request }) => count(request.raw.socket, -1));
  app.addHook("preClose", async () => {
    isClosing = true;
    for (const [socket, inFlight] of requestsInFlight) if (inFlight === 0) socket.destroy();
  });
}
