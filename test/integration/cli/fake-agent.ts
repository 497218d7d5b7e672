import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { text } from "node:stream/consumers";

export interface FakeAgent extends AsyncDisposable {
  /** HOST:PORT */
  readonly target: string;
  /** What clients asked, in order. */
  readonly requests: unknown[];
}

/** The agent's TCP door, played: reads a whole request, then does what `answer` says. */
export async function openFakeAgent(
  answer: (socket: Socket, request: unknown) => void,
): Promise<FakeAgent> {
  const requests: unknown[] = [];
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    void text(socket).then((line) => {
      const request: unknown = JSON.parse(line);
      requests.push(request);
      answer(socket, request);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  return {
    target: `127.0.0.1:${port}`,
    requests,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** One JSON line, then the end. */
export function answerWith(value: unknown): (socket: Socket) => void {
  return (socket) => void socket.end(`${JSON.stringify(value)}\n`);
}
