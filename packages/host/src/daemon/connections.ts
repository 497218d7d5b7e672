import type { RequestListener, Server } from "node:http";
import type { Socket } from "node:net";
import { limits } from "@forkd/api";

/**
 * What a connection may cost: it ends when it asks for nothing, leaves its answer unread, or asks for
 * too much at once.
 */
export class Connections {
  /** Requests in flight on each open connection. */
  readonly #inFlight = new Map<Socket, number>();
  readonly #stallMaxMs: number;
  #isClosing = false;

  /** `stallMaxMs`: how long a client may take nothing of its answer. */
  constructor(stallMaxMs: number) {
    this.#stallMaxMs = stallMaxMs;
  }

  /**
   * Counts the requests that a listener answers. Answers to requests that were sent in one go wait
   * in memory for the first one's, so too many end the connection. They are not answered: a parser
   * has hundreds of them ready before it stops to read.
   */
  counting(listener: RequestListener): RequestListener {
    return (request, response) => {
      const { socket } = request;
      const inFlight = (this.#inFlight.get(socket) ?? 0) + 1;
      if (inFlight > limits.pipelinedRequestsMax) {
        socket.destroy();
        return;
      }
      this.#inFlight.set(socket, inFlight);
      response.once("close", () => {
        const now = this.#inFlight.get(socket);
        if (now !== undefined) this.#inFlight.set(socket, now - 1);
      });
      listener(request, response);
    };
  }

  /**
   * Node tells here that a connection has moved nothing for its time. One that waits for its answer
   * may wait; one that leaves an answer unread, or asks for nothing, is over.
   */
  watch(server: Server, hasTls: boolean): void {
    server.on(hasTls ? "secureConnection" : "connection", (socket: Socket) => {
      if (this.#isClosing) {
        socket.destroy();
        return;
      }
      this.#inFlight.set(socket, 0);
      socket.once("close", () => this.#inFlight.delete(socket));
    });
    server.timeout = this.#stallMaxMs;
    server.on("timeout", (socket: Socket) => {
      const isIdle = (this.#inFlight.get(socket) ?? 0) === 0;
      if (isIdle || socket.writableLength > 0) socket.destroy();
    });
  }

  /**
   * Closes connections without a request in flight, and new ones. Node stops to look for slow clients
   * when the server stops, so one silent connection would hold up the whole drain.
   */
  closeIdle(): void {
    this.#isClosing = true;
    for (const [socket, inFlight] of this.#inFlight) if (inFlight === 0) socket.destroy();
  }
}
