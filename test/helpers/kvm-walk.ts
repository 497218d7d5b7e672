import assert from "node:assert/strict";
import {
  type EgressInput,
  type EngineName,
  evalResultSchema,
  type SandboxInfo,
  sandboxInfoSchema,
} from "@forkd/api";
import { z } from "zod";
import {
  type Answer,
  call,
  installed,
  killController,
  startController,
} from "./system-controller.ts";
import type { SystemVm } from "./system-vm.ts";
import { ports, world } from "./test-world.ts";

/** For FORKD_KVM_TRIAL_SECS: a guest boots in half a minute there on a busy machine. */
export const trialSecs = 300;
const cliTimeoutMs = 15 * 60_000;
const guestSecs = 200;
const memoryMib = 256;
/** Where writes go that are not to a tmpfs. */
const scratchMib = 128;
const file = "/var/it";

/** Says what a server answers, in a guest. No quotes of the shell's: see {@link call}. */
const probe = `import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as s:
        print(s.recv(16).decode(), end="")
except OSError:
    print("closed")
`;

/** forkd's main road on one engine with KVM, by its doors: each step prints whether it went well. */
export class KvmWalk {
  readonly #vm: SystemVm;
  readonly #engine: EngineName;
  readonly #image: readonly string[];
  readonly #tag: string;
  #children: SandboxInfo[] = [];
  passed = 0;
  failed = 0;

  /** `image` is what `forkd from-image` is told; the VM's data directory has it already. */
  constructor(vm: SystemVm, engine: EngineName, image: readonly string[]) {
    this.#vm = vm;
    this.#engine = engine;
    this.#image = image;
    this.#tag = `kvm-${engine}`;
  }

  /** A step that fails does not end the walk: the later ones say what else is wrong. */
  async all(): Promise<void> {
    console.log(`\n## ${this.#engine}`);
    await this.#step("the doctor finds that KVM runs a guest", () => this.#doctor());
    await this.#step("a parent is baked with a warm Python", () => this.#bake());
    await this.#step("the daemon starts", () => startController(this.#vm, this.#env()));
    await this.#step("three children of it are not the same", () => this.#spawn());
    await this.#step("exec writes a file in one of them", () => this.#write());
    await this.#step("eval runs in all of them", () => this.#eval());
    await this.#step("a diff branch has what its sandbox had", () => this.#branchDiff());
    await this.#step("a branch of its fork has what both had", () => this.#branchChain());
    await this.#step("a live branch works or says why not", () => this.#branchLive());
    await this.#step("children reach what their policies name", () => this.#network());
    await this.#step("a killed daemon's sandboxes are adopted", () => this.#adopt());
    await this.#step("nothing is left of them", () => this.#end());
  }

  async #step(name: string, work: () => Promise<void>): Promise<void> {
    const started = performance.now();
    const took = (): string => `${Math.round((performance.now() - started) / 1000)} s`;
    try {
      await work();
      this.passed += 1;
      console.log(`ok ${name} (${took()})`);
    } catch (error) {
      this.failed += 1;
      console.log(`not ok ${name} (${took()})\n${error}`);
    }
  }

  #env(): readonly string[] {
    const base = [`FORKD_ENGINE=${this.#engine}`, `FORKD_KVM_TRIAL_SECS=${trialSecs}`];
    return this.#engine === "qemu" ? base : [...base, "FORKD_FIRECRACKER=/files/fc/firecracker"];
  }

  async #forkd(...words: readonly string[]): Promise<string> {
    const env = [...installed.env, ...this.#env(), `FORKD_DATA_DIR=${installed.dataDir}`];
    const command = ["env", ...env, installed.forkd, ...words].join(" ");
    return await this.#vm.ok(command, { timeoutMs: cliTimeoutMs });
  }

  /** It takes the trials of all engines, so it may fail for one that is not asked for. */
  async #doctor(): Promise<void> {
    const said = await this.#forkd("doctor", "--only", "engine");
    assert.match(said, new RegExp(`new parents: ${this.#engine} \\S+ with kvm`));
  }

  async #bake(): Promise<void> {
    const size = ["--mem-size-mib", String(memoryMib), "--scratch-mib", String(scratchMib)];
    await this.#forkd(
      "from-image",
      ...this.#image,
      "--tag",
      this.#tag,
      "--warm",
      "python",
      ...size,
    );
    const path = `${installed.dataDir}/snapshots/${this.#tag}/snapshot.json`;
    const manifest = await this.#vm.ok(`cat ${path}`);
    assert.match(manifest, /"accel": "kvm"/);
    assert.match(manifest, new RegExp(`"size_mib": ${scratchMib}\\b`));
  }

  async #spawn(): Promise<void> {
    this.#children = await this.#fork(this.#tag, 3);
    for (const { engine, isolation } of this.#children) {
      assert.deepEqual([engine, isolation], [this.#engine, "vm"]);
    }
    const ids = this.#children.map(({ identity }) => identity?.machine_id);
    assert.equal(new Set(ids).size, 3, `machine ids: ${ids}`);
    console.log(`# spawned in ${this.#children.map((c) => Math.round(c.spawn_ms ?? 0))} ms`);
  }

  async #write(): Promise<void> {
    assert.equal(await this.#shell(this.#first(), `echo one > ${file}; cat ${file}`), "one\n");
    const [, second = assert.fail("no second child")] = this.#children;
    assert.equal(await this.#shell(second.id, `cat ${file} 2>/dev/null || echo none`), "none\n");
  }

  async #eval(): Promise<void> {
    for (const { id } of this.#children) {
      const path = `POST /v1/sandboxes/${id}/eval`;
      const answer = await this.#ok(path, 200, { code: "6 * 7", timeout_secs: guestSecs });
      assert.equal(evalResultSchema.parse(answer).result, "42");
    }
  }

  async #branchDiff(): Promise<void> {
    const tag = `${this.#tag}-diff`;
    await this.#ok(`POST /v1/sandboxes/${this.#first()}/branch`, 201, { tag, mode: "diff" });
    await this.#shell(this.#first(), `echo two >> ${file}`);
    const [grandchild = assert.fail("nothing was spawned")] = await this.#fork(tag, 1);
    this.#children.push(grandchild);
    assert.equal(await this.#shell(grandchild.id, `cat ${file}`), "one\n");
    assert.equal(await this.#shell(this.#first(), `cat ${file}`), "one\ntwo\n");
  }

  /** A chain of three: its forks are put together from all of them. */
  async #branchChain(): Promise<void> {
    const tag = `${this.#tag}-chain`;
    const { id } = this.#children.at(-1) ?? assert.fail("there are no children");
    assert.equal(await this.#shell(id, `echo three >> ${file}; cat ${file}`), "one\nthree\n");
    await this.#ok(`POST /v1/sandboxes/${id}/branch`, 201, { tag, mode: "diff" });
    const [last = assert.fail("nothing was spawned")] = await this.#fork(tag, 1);
    this.#children.push(last);
    assert.equal(await this.#shell(last.id, `cat ${file}`), "one\nthree\n");
  }

  /** QEMU's needs a kernel that can track writes (6.7); Firecracker's a build that nobody has. */
  async #branchLive(): Promise<void> {
    const tag = `${this.#tag}-live`;
    const request = { tag, mode: "live" };
    const path = `POST /v1/sandboxes/${this.#first()}/branch`;
    const { status, body } = await call(this.#vm, path, request);
    if (status === 201) {
      const [grandchild = assert.fail("nothing was spawned")] = await this.#fork(tag, 1);
      this.#children.push(grandchild);
      assert.equal(await this.#shell(grandchild.id, `cat ${file}`), "one\ntwo\n");
      return;
    }
    const { code, error } = z.object({ code: z.string(), error: z.string() }).parse(body);
    assert.equal(code, "live_unsupported", error);
    console.log(`# live: ${error}`);
  }

  /** In namespaces of their own: nobody else reaches anything. */
  async #network(): Promise<void> {
    await this.#forkd("netns", "setup", "2");
    const allow = [{ cidr: world.public4, ports: [ports.web] }];
    const [one = assert.fail("nothing was spawned")] = await this.#fork(this.#tag, 1, { allow });
    const [other = assert.fail("nothing was spawned")] = await this.#fork(this.#tag, 1, {});
    this.#children.push(one, other);
    assert.equal(await this.#reach(one.id, ports.web), `${ports.web}\n`);
    assert.equal(await this.#reach(one.id, ports.other), "closed\n");
    assert.equal(await this.#reach(other.id, ports.web), "closed\n");
  }

  async #reach(id: string, port: number): Promise<string> {
    return await this.#exec(id, ["python3", "-c", probe, world.public4, String(port)]);
  }

  async #adopt(): Promise<void> {
    await killController(this.#vm);
    assert.equal(await this.#shell(this.#first(), `cat ${file}`), "one\ntwo\n");
    const alive = z.array(sandboxInfoSchema).parse(await this.#ok("GET /v1/sandboxes", 200));
    const running = alive.filter(({ state }) => state === "running").map(({ id }) => id);
    assert.deepEqual(running.sort(), this.#children.map(({ id }) => id).sort());
  }

  async #end(): Promise<void> {
    for (const { id } of this.#children) await this.#ok(`DELETE /v1/sandboxes/${id}`, 204);
    await this.#vm.ok(`systemctl stop ${installed.unit}`);
    assert.equal(await this.#forkd("leaks"), "");
    const vmms = "pgrep --list-name 'qemu-system|firecracker' || true";
    assert.equal(await this.#vm.ok(vmms), "");
  }

  #first(): string {
    return this.#children[0]?.id ?? assert.fail("there are no children");
  }

  /** With `egress`, each in a network namespace of its own. */
  async #fork(tag: string, n: number, egress?: EgressInput): Promise<SandboxInfo[]> {
    const network = egress === undefined ? {} : { per_child_netns: true, egress };
    const request = { snapshot_tag: tag, n, min_isolation: "vm", ...network };
    return z.array(sandboxInfoSchema).parse(await this.#ok("POST /v1/sandboxes", 201, request));
  }

  async #shell(id: string, command: string): Promise<string> {
    return await this.#exec(id, ["/bin/sh", "-c", command]);
  }

  async #exec(id: string, args: readonly string[]): Promise<string> {
    const request = { args, timeout_secs: guestSecs };
    const answer = await this.#ok(`POST /v1/sandboxes/${id}/exec`, 200, request);
    const { exit_code, stdout, stderr } = resultSchema.parse(answer);
    assert.equal(exit_code, 0, stderr);
    return stdout;
  }

  async #ok(path: string, wanted: number, body?: object): Promise<Answer["body"]> {
    const answer = await call(this.#vm, path, body);
    assert.equal(answer.status, wanted, JSON.stringify(answer.body));
    return answer.body;
  }
}

const resultSchema = z.object({ exit_code: z.int(), stdout: z.string(), stderr: z.string() });
