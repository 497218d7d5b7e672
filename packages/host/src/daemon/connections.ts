import type { RequestListener, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { limits } from "@forkd/api";

/**
 * What a connection may cost: it ends when it asks for nothing, leaves its answer unread, or asks
 * for too much at once.
 */
export class Connections {
  /** What is not answered yet, by its connection. */
  readonly #inFlight = new Map<Socket, Set<ServerResponse>>();
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
      const inFlight = this.#inFlight.get(socket);
      if (inFlight !== undefined && inFlight.size >= limits.pipelinedRequestsMax) {
        socket.destroy();
        return;
      }
      inFlight?.add(response);
      response.once("close", () => inFlight?.delete(response));
      listener(request, response);
    };
  }

  /**
   * Whether nothing waits for an answer on a connection: only then may another protocol begin on
   * it, whose first bytes would be taken for that answer.
   */
  isFree(socket: Socket): boolean {
    return (this.#inFlight.get(socket)?.size ?? 0) === 0;
  }

  /**
   * What a connection that sent no HTTP is due: an answer, unless answers to what came before are
   * due first, which it would be taken for. Nothing, when it had said that there would be no more.
   */
  dueForUnparsed(socket: Socket, code: string | undefined): "answer" | "end" | "nothing" {
    const [first, ...others] = this.#inFlight.get(socket) ?? [];
    if (first === undefined) return "answer";
    // The request itself may be what cannot be read to its end.
    if (others.length === 0 && !first.req.complete && !first.headersSent) return "answer";
    return code === "HPE_CLOSED_CONNECTION" ? "nothing" : "end";
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
      this.#inFlight.set(socket, new Set());
      socket.once("close", () => this.#inFlight.delete(socket));
    });
    server.timeout = this.#stallMaxMs;
    server.on("timeout", (socket: Socket) => {
      if (this.isFree(socket) || socket.writableLength > 0) socket.destroy();
    });
  }

  /**
   * Closes connections without a request in flight, and new ones. Node stops to look for slow
   * clients when the server stops, so one silent connection would hold up the whole drain.
   */
  closeIdle(): void {
    this.#isClosing = true;
    for (const [socket, inFlight] of this.#inFlight) if (inFlight.size === 0) socket.destroy();
  }
}
