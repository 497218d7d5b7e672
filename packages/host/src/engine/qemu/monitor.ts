import { connect, type Socket } from "node:net";
import { ForkdError } from "@forkd/api";
import { withDeadline } from "../../lib/deadline.ts";

const connectTimeoutMs = 10_000;

/** Connects to a monitor that a VMM listens on. Throws engine_failed or deadline_exceeded. */
export function openMonitor(path: string): Promise<Socket> {
  const socket = connect(path);
  const opened = new Promise<Socket>((resolve, reject) => {
    socket.once("connect", () => resolve(socket));
    socket.once("error", (error) => {
      const message = `the VMM does not take a monitor connection: ${error.message}`;
      reject(new ForkdError("engine_failed", message, { cause: error }));
    });
  });
  opened.catch(() => socket.destroy());
  return withDeadline(opened, connectTimeoutMs, "connecting to the VMM's monitor");
}
