import { randomBytes } from "node:crypto";
import type { SnapshotInfo } from "@forkd/api";
import {
  type EventType,
  type ForkdEvent,
  limits,
  type SandboxInfo,
  toForkdError,
} from "@forkd/api";
import type { Logger } from "../lib/log.ts";

type Facts = Pick<ForkdEvent, "sandbox_id" | "snapshot_tag" | "reason">;

/** What one look at the log gives: events, and where the next look goes on. */
export interface EventPage {
  readonly events: readonly ForkdEvent[];
  readonly next: number;
  /** Events between the last look and this one are gone: the reader was too slow, or is too late. */
  readonly missed: boolean;
}

/**
 * The last things that happened, in order. Readers keep a position, not a queue: one that is slow
 * costs nothing, and learns that it has missed something.
 */
export class EventLog {
  /** Names this daemon's run: positions of another one mean nothing here. */
  readonly #run = randomBytes(4).toString("hex");
  readonly #kept: ForkdEvent[] = [];
  #next = 1;
  #wakes = new Set<() => void>();

  append(type: EventType, facts: Facts): void {
    const id = `${this.#run}-${this.#next}`;
    this.#next += 1;
    this.#kept.push({ id, type, at_unix_ms: Date.now(), ...facts });
    if (this.#kept.length > limits.eventsKeptMax) this.#kept.shift();
    const wakes = this.#wakes;
    this.#wakes = new Set();
    for (const wake of wakes) wake();
  }

  /** The position after an event's id; of none, the present. Undefined for one of another run. */
  positionAfter(id: string | undefined): number | undefined {
    if (id === undefined) return this.#next;
    const [, run, number] = /^([0-9a-f]{8})-(\d{1,15})$/.exec(id) ?? [];
    const next = Number(number) + 1;
    return run === this.#run && next <= this.#next ? next : undefined;
  }

  /** What has happened since a position; from the oldest that is kept when that is later. */
  since(position: number): EventPage {
    const oldest = this.#next - this.#kept.length;
    const from = Math.max(position, oldest);
    return {
      events: this.#kept.slice(from - oldest),
      next: this.#next,
      missed: position < oldest,
    };
  }

  /** Resolves at the next event, after `ms`, or when the signal aborts. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = (): void => resolve();
    const timer = setTimeout(wake, ms);
    signal.addEventListener("abort", wake, { once: true });
    this.#wakes.add(wake);
    await promise;
    clearTimeout(timer);
    signal.removeEventListener("abort", wake);
    this.#wakes.delete(wake);
  }
}

/** Turns what is known of sandboxes and snapshots, each time that it changes, into events. */
export class EventSource {
  readonly log = new EventLog();
  /** To be called after every change of a sandbox. */
  readonly onSandbox = (info: SandboxInfo): void => this.#sandboxChanged(info);
  readonly #sandboxes = new Map<string, SandboxInfo>();
  readonly #snapshots = new Map<string, SnapshotInfo["status"]>();
  /** Tags of bakes under way. */
  readonly #baking = new Set<string>();
  readonly #list: () => Promise<SnapshotInfo[]>;
  readonly #logger: Logger;
  #looking: Promise<void> = Promise.resolve();
  #isAsked = false;

  constructor(list: () => Promise<SnapshotInfo[]>, logger: Logger) {
    this.#list = list;
    this.#logger = logger;
  }

  /** Takes what is there already as known. */
  async start(sandboxes: readonly SandboxInfo[]): Promise<void> {
    for (const info of sandboxes) this.#sandboxes.set(info.id, info);
    for (const { tag, status } of await this.#list()) this.#snapshots.set(tag, status);
  }

  #sandboxChanged(info: SandboxInfo): void {
    const { id, state, end, branch_count } = info;
    const before = this.#sandboxes.get(id);
    const about = { sandbox_id: id, snapshot_tag: info.snapshot_tag };
    if (before === undefined && state === "running") this.log.append("sandbox.created", about);
    if (before !== undefined && branch_count > before.branch_count) {
      this.log.append("sandbox.branched", about);
    }
    if (end === null) {
      if (state !== "starting") this.#sandboxes.set(id, info);
      return;
    }
    // One that never was open was never told of.
    if (before === undefined) return;
    this.#sandboxes.delete(id);
    this.log.append("sandbox.ended", { ...about, reason: end.reason });
  }

  /**
   * Tells of a bake from its begin to its end. Nothing is listed of it before; what is listed under
   * its tag meanwhile is one that it takes the place of.
   */
  async whileBaking<T>(tag: string, work: (onBegin: () => void) => Promise<T>): Promise<T> {
    let hasBegun = false;
    const onBegin = (): void => {
      hasBegun = true;
      this.log.append("snapshot.writing", { snapshot_tag: tag });
    };
    // Its reservation is listed before its begin.
    this.#baking.add(tag);
    try {
      const made = await work(onBegin);
      // Its ready is news, also where the one before it was.
      this.#snapshots.delete(tag);
      return made;
    } catch (thrown) {
      if (hasBegun) {
        const reason = toForkdError(thrown).message;
        this.log.append("snapshot.failed", { snapshot_tag: tag, reason });
      }
      throw thrown;
    } finally {
      this.#baking.delete(tag);
      this.snapshotsChanged();
    }
  }

  /** Looks at the list soon; many changes at once are one look. */
  snapshotsChanged(): void {
    if (this.#isAsked) return;
    this.#isAsked = true;
    this.#looking = this.#looking.then(() => this.#look());
  }

  async #look(): Promise<void> {
    this.#isAsked = false;
    try {
      // A list from before a bake's end says nothing of it; another look follows.
      const before = [...this.#baking];
      const found = new Map((await this.#list()).map((info) => [info.tag, info]));
      const baking = new Set([...before, ...this.#baking]);
      for (const tag of [...this.#snapshots.keys()]) {
        if (found.has(tag) || baking.has(tag)) continue;
        this.#snapshots.delete(tag);
        this.log.append("snapshot.removed", { snapshot_tag: tag });
      }
      for (const info of found.values()) {
        if (!baking.has(info.tag)) this.#snapshotFound(info);
      }
    } catch (cause) {
      this.#logger.error("the snapshots are not listed for events", { cause });
    }
  }

  #snapshotFound({ tag, status, warning }: SnapshotInfo): void {
    if (this.#snapshots.get(tag) === status) return;
    this.#snapshots.set(tag, status);
    const why = status === "failed" && warning !== undefined ? { reason: warning } : {};
    this.log.append(`snapshot.${status}`, { snapshot_tag: tag, ...why });
  }
}
