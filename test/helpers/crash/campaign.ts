import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { JournalStep } from "@forkd/host/fork/steps.ts";
import { run } from "@forkd/host/lib/exec.ts";
import type { Stage } from "./stage.ts";

/** What leads a daemon through a step. */
type Act = () => Promise<unknown>;

const aliveMin = 2;
const aliveMax = 4;
/** From the beginning of some work to a kill at a random instant of it. */
const randomKillMaxMs = 600;
const randomKillsPerRound = 8;
const rootMib = 16;
const branchModes = ["diff", "live", "full"] as const;

const spawnSteps: readonly JournalStep[] = [
  "start_recorded",
  "resource_recorded",
  "resource_taken",
  "vmm_started",
  "identity_proven",
  "running_recorded",
];
const endSteps: readonly JournalStep[] = [
  "end_intended",
  "vmm_stopped",
  "resources_released",
  "end_recorded",
  "work_dir_doomed",
  "work_dir_removed",
];
/** Met while the daemon starts, once for each sandbox. */
const adoptSteps: readonly JournalStep[] = ["adopted", "attach_recorded", "attached"];
const branchSteps: readonly JournalStep[] = [
  "branch_staged",
  "branch_captured",
  "branch_published",
];
/** Seconds each. */
const bakeSteps: readonly JournalStep[] = [
  "bake_staged",
  "bake_booted",
  "bake_warm",
  "bake_frozen",
  "bake_published",
];
/** Every step of the journal is one of these. */
export const campaignSteps: readonly JournalStep[] = [
  ...spawnSteps,
  ...endSteps,
  ...adoptSteps,
  ...branchSteps,
  ...bakeSteps,
];

/** Kills daemons over and over, and looks after each kill at what is left. */
export class Campaign {
  /** How often the daemon died, by where. */
  readonly kills = new Map<string, number>();
  vmmKills = 0;
  snapshotsProven = 0;
  readonly #stage: Stage;
  #made = 0;
  #last = "the beginning";

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  get total(): number {
    return [...this.kills.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Every step once, some random instants, and at its end a look at every snapshot. */
  async round({ bakes }: { readonly bakes: boolean }): Promise<void> {
    for (const step of spawnSteps) await this.#atStep(step, () => this.#stage.spawn(1));
    for (const step of endSteps) await this.#atStep(step, () => this.#removeOne());
    for (const step of adoptSteps) await this.#atStart(step);
    for (const step of branchSteps) await this.#atStep(step, () => this.#branch());
    if (bakes) for (const step of bakeSteps) await this.#atStep(step, () => this.#bake());
    for (let i = 0; i < randomKillsPerRound; i += 1) await this.#atRandom();
    await this.#begin("proof", { step: null, occurrence: 1 });
    this.snapshotsProven += await this.#stage.provesSnapshots();
    await this.#kill("idle");
  }

  /** A last look, with a daemon that serves on. */
  async finish(): Promise<void> {
    await this.#stage.start();
    await this.#stage.check(this.#last);
  }

  /** One line for people. */
  report(): string {
    const counts = [...this.kills].map(([where, count]) => `${where} ${count}`).join(", ");
    const starts = this.#stage.startsMs.toSorted((a, b) => a - b);
    const median = Math.round(starts[Math.floor(starts.length / 2)] ?? 0);
    return (
      `${this.total} daemons killed (${counts}); ${this.vmmKills} VMMs killed; ` +
      `${this.snapshotsProven} snapshots restored; a start takes ${median} ms`
    );
  }

  /** Starts the next daemon and looks at what the last one left. */
  async #begin(what: string, order: { step: JournalStep | null; occurrence: number }) {
    await this.#stage.start(order);
    await this.#stage.check(`${this.#last}, before ${what}`);
  }

  async #atStep(step: JournalStep, act: Act): Promise<void> {
    const stage = this.#stage;
    const isSpawn = spawnSteps.includes(step);
    const missing = Math.max(0, aliveMin - stage.alive.size);
    const order = { step, occurrence: isSpawn ? missing + 1 : 1 };
    // What the last daemon did not finish, the next one does before it serves.
    if (await stage.startInVain(order)) {
      this.#count(step);
      return;
    }
    await stage.check(`${this.#last}, before ${step}`);
    if (missing > 0) await stage.spawn(missing);
    await this.#thinOut(endSteps.includes(step));
    const acting = act().catch(() => undefined);
    await stage.daemon.end("wait");
    await acting;
    assert.equal(stage.daemon.crashedAt, step);
    this.#count(step);
  }

  async #atStart(step: JournalStep): Promise<void> {
    const { alive } = this.#stage;
    const occurrence = 1 + Math.floor(Math.random() * alive.size);
    // A daemon does not wait for every agent, so it may listen before it gets there.
    if (!(await this.#stage.startInVain({ step, occurrence }))) {
      await this.#stage.daemon.end("wait");
    }
    assert.equal(this.#stage.daemon.crashedAt, step);
    this.#count(step);
  }

  /** Under load: execs on all, a spawn, a delete, a VMM that dies; then at some instant. */
  async #atRandom(): Promise<void> {
    const stage = this.#stage;
    await this.#begin("a random instant", { step: null, occurrence: 1 });
    const missing = Math.max(0, aliveMin + 1 - stage.alive.size);
    if (missing > 0) await stage.spawn(missing);
    await this.#thinOut(false);
    const [first = ""] = stage.alive;
    const load = [
      ...[...stage.alive].map((id) => this.#execs(id)),
      stage.spawn(1),
      Math.random() < 0.5 ? stage.remove(first) : this.#killVmm(first),
    ];
    const loaded = Promise.allSettled(load);
    await sleep(Math.random() * randomKillMaxMs);
    await this.#kill("random instant");
    await loaded;
  }

  async #kill(where: string): Promise<void> {
    await this.#stage.daemon.end("kill");
    this.#count(where);
  }

  #count(where: string): void {
    this.#last = where;
    this.kills.set(where, (this.kills.get(where) ?? 0) + 1);
  }

  async #execs(id: string): Promise<void> {
    for (;;) await this.#stage.exec(id);
  }

  async #killVmm(id: string): Promise<void> {
    const stage = this.#stage;
    const { pid } = await stage.client.getSandbox({ params: { id } });
    stage.alive.delete(id);
    process.kill(pid ?? assert.fail(), "SIGKILL");
    this.vmmKills += 1;
  }

  async #thinOut(willRemove: boolean): Promise<void> {
    if (willRemove) return;
    for (const id of [...this.#stage.alive].slice(aliveMax)) await this.#stage.remove(id);
  }

  async #removeOne(): Promise<void> {
    const [id = ""] = this.#stage.alive;
    await this.#stage.remove(id);
  }

  async #branch(): Promise<void> {
    const [id = ""] = this.#stage.alive;
    this.#made += 1;
    const mode = branchModes[this.#made % branchModes.length] ?? "diff";
    const body = { tag: `branch-${this.#made}`, mode };
    await this.#stage.client.branchSandbox({ params: { id }, body });
  }

  async #bake(): Promise<void> {
    const rootfs = join(this.#stage.dataDir, "bare.img");
    if (!existsSync(rootfs)) await run(["mkfs.ext4", "-q", rootfs, `${rootMib}M`]);
    this.#made += 1;
    const body = { tag: `bake-${this.#made}`, kernel: this.#stage.vmlinuz, rootfs };
    await this.#stage.client.createSnapshot({ body });
  }
}
