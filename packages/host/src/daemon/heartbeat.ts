import type { WebSocket } from "ws";

/**
 * Pings a client; one that has not answered by the next ping is gone, and its connection is ended.
 * Returns what stops it.
 */
export function keepAsking(socket: WebSocket, everyMs: number): () => void {
  let isAlive = true;
  socket.on("pong", () => {
    isAlive = true;
  });
  const timer = setInterval(() => {
    if (!isAlive) {
      socket.terminate();
      return;
    }
    isAlive = false;
    socket.ping();
  }, everyMs);
  return () => clearInterval(timer);
}
