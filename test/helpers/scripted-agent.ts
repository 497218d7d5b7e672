import { Duplex } from "node:stream";
import { encodeFrame, type Frame, FrameParser, frameType } from "@forkd/host/agent/frame.ts";

/** The guest's end of a channel, played by a test: it sees frames and answers as it likes. */
export class ScriptedAgent {
  readonly channel: Duplex;
  /** Every frame of the host, after the attach token. */
  readonly seen: Frame[] = [];
  token: Buffer | undefined;
  readonly #parser = new FrameParser();
  readonly #onRequest: (op: Record<string, unknown>, stream: number) => void;

  constructor(onRequest: (op: Record<string, unknown>, stream: number) => void = () => undefined) {
    this.#onRequest = onRequest;
    this.channel = new Duplex({
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        this.#receive(chunk);
        done();
      },
    });
  }

  /** Sends raw bytes to the host. */
  raw(bytes: Uint8Array): void {
    this.channel.push(bytes);
  }

  send(type: keyof typeof frameType, stream: number, payload: object | Uint8Array): void {
    const body = payload instanceof Uint8Array ? payload : Buffer.from(JSON.stringify(payload));
    this.raw(encodeFrame(frameType[type], stream, body));
  }

  /** Answers a hello as an agent does: the echo, then the reply. */
  answerHello(op: Record<string, unknown>): void {
    this.raw(Buffer.from(String(op["echo_b64"]), "base64"));
    this.send("reply", 0, {
      protocol: 1,
      agent: "test",
      boot_id: "b",
      generation: 0,
      gate: "closed",
      warm: "ready",
      runtime: "python",
    });
  }

  #receive(chunk: Buffer): void {
    let bytes = chunk;
    if (this.token === undefined) {
      this.token = chunk.subarray(0, 16);
      bytes = chunk.subarray(16);
    }
    for (const frame of this.#parser.push(bytes)) {
      this.seen.push(frame);
      if (frame.type !== frameType.request) continue;
      this.#onRequest(JSON.parse(frame.payload.toString("utf8")), frame.stream);
    }
  }
}
