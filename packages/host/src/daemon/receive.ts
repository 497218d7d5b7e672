import { Socket } from "node:net";
import type { FastifyInstance } from "fastify";
import { asksForSocket } from "./upgrades.ts";

/**
 * Ends a connection whose request has not arrived as a whole in time. Node's own limit knows no
 * exceptions, and the body of a stream route may take hours: those waits have limits of their own.
 */
export function installReceiveLimit(app: FastifyInstance, maxMs: number): void {
  app.addHook("onRequest", async ({ raw, routeOptions }) => {
    const isLong = routeOptions.config.isStream === true || asksForSocket(raw);
    // A request that was injected has no connection.
    if (raw.complete || isLong || !(raw.socket instanceof Socket)) return;
    const timer = setTimeout(() => {
      if (raw.complete || raw.socket.destroyed) return;
      const late = Object.assign(new Error("late"), { code: "ERR_HTTP_REQUEST_TIMEOUT" });
      app.server.emit("clientError", late, raw.socket);
    }, maxMs);
    raw.once("close", () => clearTimeout(timer));
  });
}
