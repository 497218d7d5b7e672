import type { Duplex } from "node:stream";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import { withDeadline } from "../../lib/deadline.ts";

/** A line of QMP longer than this is no QMP. */
const lineBytesMax = 4 * 1024 * 1024;
const commandTimeoutMs = 30_000;

const eventSchema = z.object({
  event: z.string(),
  data: z.record(z.string(), z.unknown()).default({}),
  timestamp: z.object({ seconds: z.int(), microseconds: z.int() }),
});
export type QmpEvent = z.infer<typeof eventSchema>;

const answerSchema = z.union([
  z.object({ QMP: z.unknown() }),
  eventSchema,
  z.object({ id: z.int(), return: z.unknown() }),
  z.object({ id: z.int(), error: z.object({ class: z.string(), desc: z.string() }) }),
  // Late, to a client that was there before: with another kind of id, or none.
  z.object({ id: z.string().optional(), return: z.unknown() }).transform(() => ({ late: true })),
  z.object({ id: z.string().optional(), error: z.unknown() }).transform(() => ({ late: true })),
]);

interface Waiter {
  resolve(value: unknown): void;
  reject(error: ForkdError): void;
}

interface EventWaiter {
  matches(event: QmpEvent): boolean;
  resolve(event: QmpEvent): void;
  reject(error: ForkdError): void;
}

/**
 * One QMP connection (QEMU Machine Protocol, docs/interop/qmp-spec of QEMU). Commands may be sent
 * at once, QEMU answers them in order, from its main loop.
 */
export class Qmp {
  readonly #socket: Duplex;
  readonly #commands = new Map<number, Waiter>();
  readonly #waiters = new Set<EventWaiter>();
  #pending = "";
  #lastId = 0;
  #failure: ForkdError | undefined;
  #guestOff: string | null = null;
  /** Resolves when the connection has ended, and with it the last event was seen. */
  readonly closed: Promise<void>;

  constructor(socket: Duplex) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.once("close", resolve));
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#receive(text));
    socket.on("error", (error) => this.#fail(`QMP broke: ${error.message}`));
    socket.on("close", () => this.#fail("QMP was closed by the VMM"));
  }

  /** QEMU's reason when the guest switched itself off (event SHUTDOWN of its QMP reference). */
  get guestOff(): string | null {
    return this.#guestOff;
  }

  /** Runs one command; throws engine_failed with QEMU's words. */
  execute(command: string, args: object = {}): Promise<unknown> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#lastId += 1;
    const id = this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#commands.set(id, { resolve, reject });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    return withDeadline(promise, commandTimeoutMs, `QMP ${command}`);
  }

  /** The first event from now on that `matches`. Ask for it before what causes it. */
  waitFor(
    matches: (event: QmpEvent) => boolean,
    timeoutMs: number,
    what: string,
  ): Promise<QmpEvent> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const { promise, resolve, reject } = Promise.withResolvers<QmpEvent>();
    const waiter = { matches, resolve, reject };
    this.#waiters.add(waiter);
    return withDeadline(promise, timeoutMs, what).finally(() => this.#waiters.delete(waiter));
  }

  close(): void {
    this.#fail("QMP was closed");
  }

  #receive(text: string): void {
    this.#pending += text;
    for (let at = this.#pending.indexOf("\n"); at >= 0; at = this.#pending.indexOf("\n")) {
      const line = this.#pending.slice(0, at);
      this.#pending = this.#pending.slice(at + 1);
      if (line.trim() !== "") this.#receiveLine(line);
    }
    if (this.#pending.length > lineBytesMax) this.#fail("QMP sent a line over the bound");
  }

  #receiveLine(line: string): void {
    const parsed = answerSchema.safeParse(parseJson(line));
    if (!parsed.success) {
      this.#fail("QMP sent what is no QMP");
      return;
    }
    const answer = parsed.data;
    if ("event" in answer) this.#receiveEvent(answer);
    else if ("return" in answer) this.#take(answer.id)?.resolve(answer.return);
    else if ("error" in answer) {
      this.#take(answer.id)?.reject(new ForkdError("engine_failed", answer.error.desc));
    }
  }

  #receiveEvent(event: QmpEvent): void {
    const { guest, reason } = event.data;
    if (event.event === "SHUTDOWN" && guest === true) this.#guestOff = String(reason);
    for (const waiter of this.#waiters) if (waiter.matches(event)) waiter.resolve(event);
  }

  #take(id: number): Waiter | undefined {
    const waiter = this.#commands.get(id);
    this.#commands.delete(id);
    return waiter;
  }

  #fail(why: string): void {
    if (this.#failure !== undefined) return;
    this.#failure = new ForkdError("engine_failed", why);
    for (const waiter of [...this.#commands.values(), ...this.#waiters])
      waiter.reject(this.#failure);
    this.#commands.clear();
    this.#waiters.clear();
    this.#socket.destroy();
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
