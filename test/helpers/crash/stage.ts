import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { fixLeaks, listLeaks } from "@forkd/host/fork/leaks/leaks.ts";
import { run } from "@forkd/host/lib/exec.ts";
import type { Client } from "@forkd/sdk";
import type { Baked } from "../baked.ts";
import { eventually } from "../eventually.ts";
import { vmmProcesses } from "../vmm-processes.ts";
import type { CrashOrder } from "./daemon.ts";
import { CrashingDaemon } from "./process.ts";

const noCrash: CrashOrder = { step: null, occurrence: 1 };
const settleTimeoutMs = 20_000;

/** A data directory of its own, the daemon that serves it, and the next one, warmed up. */
export class Stage {
  readonly dataDir: string;
  readonly tag: string;
  /** Sandboxes that somebody was told of and that nobody ended. */
  readonly alive = new Set<string>();
  readonly #auditLog: string;
  #daemon: CrashingDaemon | undefined;
  #next: CrashingDaemon;
  #client: Client | undefined;
  /** Milliseconds from the word to serve to the first answer, one a start. */
  readonly startsMs: number[] = [];

  private constructor(dataDir: string, tag: string) {
    this.dataDir = dataDir;
    this.tag = tag;
    this.#auditLog = join(dataDir, "audit.log");
    this.#next = new CrashingDaemon(dataDir, this.#auditLog);
  }

  /** Copies the snapshot into `dir`: what happens here must not happen to the shared one. */
  static async open(baked: Baked, dir: string): Promise<Stage> {
    await mkdir(join(dir, "snapshots"), { recursive: true });
    const from = join(baked.dataDir, "snapshots", baked.tag);
    await run(["cp", "-a", "--sparse=always", from, join(dir, "snapshots", baked.tag)]);
    for (const name of ["rootfs", "kernels"]) {
      await run(["cp", "-al", join(baked.dataDir, name), join(dir, name)]);
    }
    await fixLeaks(resolveDataPaths({ FORKD_DATA_DIR: dir }, 0));
    return new Stage(dir, baked.tag);
  }

  get client(): Client {
    return this.#client ?? assert.fail("no daemon serves");
  }

  get daemon(): CrashingDaemon {
    return this.#daemon ?? assert.fail("no daemon serves");
  }

  /** The next daemon serves, and dies at that step if it gets there. */
  async start(order: CrashOrder = noCrash): Promise<void> {
    this.#daemon = this.#next;
    this.#next = new CrashingDaemon(this.dataDir, this.#auditLog);
    const began = performance.now();
    this.#daemon.order(order);
    this.#client = undefined;
    this.#client = await this.#daemon.listening();
    this.startsMs.push(performance.now() - began);
  }

  /** Like {@link start}, of a daemon that is not there any more when it would listen. */
  async startInVain(order: CrashOrder): Promise<boolean> {
    try {
      await this.start(order);
      return false;
    } catch (error) {
      await this.daemon.end("wait");
      if (this.daemon.crashedAt === undefined) throw error;
      return true;
    }
  }

  /** Spawns; every sandbox of a 201 counts as alive. */
  async spawn(n: number): Promise<void> {
    const made = await this.client.createSandboxes({ body: { snapshot_tag: this.tag, n } });
    for (const { id } of made) this.alive.add(id);
  }

  /** After this nobody may count on it, nor on its end. */
  async remove(id: string): Promise<void> {
    this.alive.delete(id);
    await this.client.deleteSandbox({ params: { id } });
  }

  async exec(id: string): Promise<void> {
    const answer = await this.client.execSandbox({
      params: { id },
      body: { args: ["echo", id], timeout_secs: 30 },
    });
    assert.equal(answer.stdout, `${id}\n`);
  }

  /**
   * What must be true after every restart: none lost, none that is not listed, nothing left behind,
   * no end told twice, no snapshot that is neither whole nor gone.
   */
  async check(what: string): Promise<void> {
    const listed = await this.client.listSandboxes();
    const ids = listed.map(({ id }) => id);
    const lost = [...this.alive].filter((id) => !ids.includes(id));
    assert.deepEqual(lost, [], `lost after ${what}: ${await this.#endsOf(lost)}`);
    for (const id of ids) this.alive.add(id);
    await Promise.all(ids.map((id) => this.exec(id)));
    await eventually(
      () => {
        const pids = listed.map(({ pid }) => pid ?? assert.fail()).sort();
        assert.deepEqual(vmmProcesses(this.dataDir).sort(), pids, `ghosts after ${what}`);
      },
      { timeoutMs: settleTimeoutMs },
    );
    assert.deepEqual(await this.leaks(), [], `leaks after ${what}`);
    const ended = (await this.client.listSandboxes({ query: { ended: true } })).map(({ id }) => id);
    assert.equal(new Set(ended).size, ended.length, `told twice after ${what}`);
    for (const { tag, status, warning } of await this.client.listSnapshots()) {
      assert.equal(status, "ready", `${tag} after ${what}: ${warning}`);
    }
  }

  async leaks(): Promise<string[]> {
    const paths = resolveDataPaths({ FORKD_DATA_DIR: this.dataDir }, 0);
    const leaks = (await listLeaks(paths)).filter(
      // Other data directories, of tests that are over, are not what is looked at here.
      ({ kind, what }) => kind !== "memory_image" || what.startsWith(paths.hotDir),
    );
    return leaks.map(({ kind, what, why }) => `${kind} ${what}: ${why}`);
  }

  /** Restores every snapshot that is listed as ready, and removes all but the first. */
  async provesSnapshots(): Promise<number> {
    const snapshots = await this.client.listSnapshots();
    for (const { tag } of snapshots) {
      const [made] = await this.client.createSandboxes({ body: { snapshot_tag: tag, n: 1 } });
      const id = made?.id ?? assert.fail();
      // A bare image has no program to run; its agent answers.
      assert.equal((await this.client.pingSandbox({ params: { id } })).pong, true);
      await this.client.deleteSandbox({ params: { id } });
    }
    for (const { tag } of snapshots.filter(({ tag }) => tag !== this.tag)) {
      await this.client.deleteSnapshot({ params: { tag } });
    }
    return snapshots.length;
  }

  /** Ends every sandbox and both daemons; nothing may be left then. */
  async close(): Promise<void> {
    try {
      if (this.#client !== undefined) {
        const ids = (await this.client.listSandboxes()).map(({ id }) => id);
        await Promise.all(ids.map((id) => this.remove(id)));
        await this.daemon.stop();
      }
    } finally {
      await Promise.all([this.#daemon?.end("kill"), this.#next.end("kill")]);
      for (const pid of vmmProcesses(this.dataDir)) process.kill(pid, "SIGKILL");
    }
  }

  /** Where the guest kernel is. */
  get vmlinuz(): string {
    const kernels = join(this.dataDir, "kernels");
    const names = readdirSync(kernels).map((name) => join(kernels, name, "vmlinuz"));
    return names.find((path) => existsSync(path)) ?? assert.fail("no kernel");
  }

  async #endsOf(ids: readonly string[]): Promise<string> {
    const all = await this.client.listSandboxes({ query: { ended: true } });
    return JSON.stringify(all.filter(({ id }) => ids.includes(id)).map(({ id, end }) => [id, end]));
  }
}
