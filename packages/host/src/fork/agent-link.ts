import { randomBytes } from "node:crypto";
import { ForkdError, toForkdError } from "@forkd/api";
import { thaw } from "../agent/hold.ts";
import { AgentSession } from "../agent/session.ts";
import type { Vm } from "../engine/engine.ts";
import { ChannelReset } from "../lib/channel-reset.ts";
import type { Journal } from "./journal.ts";
import type { OnStep } from "./steps.ts";

/**
 * How long each attempt waits for the agent. An agent that lives answers in milliseconds; one that
 * a wrong token reached, never; one on a host that is overloaded, some time.
 */
const helloTimeoutsMs = [1_000, 4_000, 15_000, 40_000] as const;
/** A guest whose sessions break more often than this is broken or hostile, and given up. */
const breaksMax = 1;
const breaksWindowMs = 60_000;

interface LinkParts {
  readonly vm: Vm;
  readonly journal: Journal;
  readonly onStep: OnStep;
  /** Null attaches when it is first needed. */
  readonly session: AgentSession | null;
}

/**
 * The way to one guest's agent: a session, and another one when it breaks. A guest that breaks that
 * one too is lost.
 */
export class AgentLink {
  /** Resolves with the reason when no session can be had any more. */
  readonly lost: Promise<ForkdError>;
  readonly #lose: (reason: ForkdError) => void;
  readonly #breaks: number[] = [];
  readonly #parts: LinkParts;
  #session: AgentSession | null;
  #attaching: Promise<AgentSession> | undefined;
  #closed = false;
  #foundHeld = false;

  constructor(parts: LinkParts) {
    this.#parts = parts;
    this.#session = parts.session;
    const { promise, resolve } = Promise.withResolvers<ForkdError>();
    this.lost = promise;
    this.#lose = resolve;
  }

  /** A session that works. Throws agent_unavailable when none can be had: the guest is lost then. */
  async session(): Promise<AgentSession> {
    if (this.#session !== null && this.#session.failure === undefined) return this.#session;
    this.#attaching ??= this.#attachAgain().finally(() => {
      this.#attaching = undefined;
    });
    return await this.#attaching;
  }

  /**
   * Attaches anew to a guest whose channel its engine has ended, or waits for who does it already;
   * a hold that is found ends by it. Returns whether there was one.
   */
  async renew(): Promise<boolean> {
    await this.session();
    return this.#foundHeld;
  }

  /** Ends the session, and makes no other one; the guest runs on. */
  close(): void {
    this.#closed = true;
    this.#session?.close();
  }

  async #attachAgain(): Promise<AgentSession> {
    this.#foundHeld = false;
    try {
      if (this.#session?.failure !== undefined) this.#countBreak(this.#session.failure);
      return await this.#attach();
    } catch (error) {
      if (!this.#closed) this.#lose(toForkdError(error));
      throw error;
    }
  }

  /** Throws the failure when there were too many of late. */
  #countBreak(failure: ForkdError): void {
    if (failure instanceof ChannelReset) return;
    const now = performance.now();
    while ((this.#breaks[0] ?? now) < now - breaksWindowMs) this.#breaks.shift();
    this.#breaks.push(now);
    if (this.#breaks.length > breaksMax) throw failure;
  }

  /**
   * The token of the next attach is on disk before the agent hears of it. A crash in between leaves
   * two that it may be listening for: both are tried, and the second stays the next one.
   */
  async #attach(): Promise<AgentSession> {
    const { journal, onStep } = this.#parts;
    const [current = "", planned] = journal.record.attachTokens;
    const next = planned ?? randomBytes(16).toString("hex");
    await journal.write({ attachTokens: [current, next] });
    onStep("attach_recorded");
    const session = await this.#tryAll([current, next], next);
    onStep("attached");
    await journal.write({ attachTokens: [next] });
    this.#session = session;
    if (this.#closed) session.close();
    return session;
  }

  async #tryAll(tokens: readonly string[], next: string): Promise<AgentSession> {
    let failure: unknown;
    for (const helloTimeoutMs of helloTimeoutsMs) {
      for (const token of tokens) {
        if (this.#closed) throw new ForkdError("agent_unavailable", "the sandbox is ending");
        try {
          return await this.#try(token, { next, helloTimeoutMs });
        } catch (error) {
          failure = error;
        }
      }
    }
    const { message } = toForkdError(failure);
    throw new ForkdError("agent_unavailable", `the guest's agent does not answer: ${message}`, {
      cause: failure,
    });
  }

  async #try(
    token: string,
    { next, helloTimeoutMs }: { readonly next: string; readonly helloTimeoutMs: number },
  ): Promise<AgentSession> {
    const session = AgentSession.attach(await this.#parts.vm.openChannel(), {
      token: Buffer.from(token, "hex"),
      nextToken: Buffer.from(next, "hex"),
      helloTimeoutMs,
    });
    try {
      const { held } = await session.hello;
      this.#foundHeld = held;
      // By a branch whose owner is gone: nobody else ends it, now that a host has attached.
      if (held) await thaw(session);
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }
}
