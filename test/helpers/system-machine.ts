import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { withDeadline } from "@forkd/host/lib/deadline.ts";
import { nativeTool } from "@forkd/host/lib/native.ts";
import { eventually } from "./eventually.ts";
import type { SystemImage } from "./system-image.ts";

export interface SystemRun {
  /** Negative for a signal; null when it was killed at its deadline. */
  readonly code: number | null;
  /** The last MiB. */
  readonly stdout: string;
  readonly stderr: string;
}

export interface MachineSpec {
  readonly image: SystemImage;
  /** For sockets. */
  readonly dir: string;
  /** Root, writable; files, read-only. */
  readonly disks: readonly [string, string];
  readonly memoryMib: number;
  readonly cpus: number;
  readonly kernelWords: readonly string[];
  /** Whether it has KVM of its own. */
  readonly kvm: boolean;
}

interface Command {
  readonly command: string;
  readonly timeoutMs: number;
  readonly input: string;
}

/** An emulated boot takes half a minute on an idle host. */
const bootTimeoutMs = 10 * 60_000;
/** From the guest's deadline of a command to ours. */
const answerGraceMs = 60_000;
const stopTimeoutMs = 20_000;
const socketTimeoutMs = 30_000;
const consoleCharsMax = 8_000;

/** QEMU with the system's disks, and the channel to its agent. */
export class SystemMachine {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #agent: Socket;
  readonly #answers = new Map<number, (run: SystemRun) => void>();
  #hello = Promise.withResolvers<void>();
  #console = "";
  #requests = 0;

  private constructor(child: ChildProcess, agent: Socket) {
    this.#child = child;
    this.#exited = once(child, "exit");
    this.#agent = agent;
    child.stdout?.setEncoding("utf8").on("data", (text: string) => this.#keep(text));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => this.#keep(text));
    agent.on("error", () => undefined);
    createInterface({ input: agent }).on("line", (line) => this.#heard(line));
  }

  /** Resolves when the system runs commands; nothing is left when it throws. */
  static async start(spec: MachineSpec): Promise<SystemMachine> {
    const path = join(spec.dir, "agent.sock");
    // It must not outlive the tests, however they end.
    const launcher = [nativeTool("forkd-launch"), "--die-with-parent", String(process.pid), "--"];
    const [program = "", ...args] = [...launcher, ...argvOf(spec, path)];
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    try {
      const agent = await eventually(() => connected(path), { timeoutMs: socketTimeoutMs });
      const machine = new SystemMachine(child, agent);
      await machine.#up();
      return machine;
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
  }

  async run({ command, timeoutMs, input }: Command): Promise<SystemRun> {
    this.#requests += 1;
    const id = this.#requests;
    const { promise, resolve } = Promise.withResolvers<SystemRun>();
    this.#answers.set(id, resolve);
    const request = { id, command, input, timeout_secs: timeoutMs / 1000 };
    this.#agent.write(`${JSON.stringify(request)}\n`);
    try {
      return await this.#orDead(withDeadline(promise, timeoutMs + answerGraceMs, command));
    } finally {
      this.#answers.delete(id);
    }
  }

  async reboot(): Promise<void> {
    this.#hello = Promise.withResolvers();
    this.#agent.write(
      `${JSON.stringify({ id: 0, command: "systemctl reboot", input: "", timeout_secs: 60 })}\n`,
    );
    await this.#up();
  }

  consoleTail(): string {
    return this.#console;
  }

  /** As a power cut does it. Idempotent. */
  async stop(): Promise<void> {
    this.#child.kill("SIGKILL");
    await withDeadline(this.#exited, stopTimeoutMs, "ending the system VM");
    this.#agent.destroy();
  }

  async #up(): Promise<void> {
    await this.#orDead(withDeadline(this.#hello.promise, bootTimeoutMs, "booting the system VM"));
  }

  /** A machine that is gone answers nothing; what it said last is why. */
  async #orDead<T>(work: Promise<T>): Promise<T> {
    const died = this.#exited.then(() => {
      throw new Error("the system VM ended");
    });
    died.catch(() => undefined);
    try {
      return await Promise.race([work, died]);
    } catch (error) {
      throw new Error(`${error}; its console ends with:\n${this.#console}`, { cause: error });
    }
  }

  #keep(text: string): void {
    this.#console = (this.#console + text).slice(-consoleCharsMax);
  }

  #heard(line: string): void {
    // The agent is ours, so its shapes are known.
    const message = JSON.parse(line) as { hello?: string; id: number } & SystemRun;
    if (message.hello !== undefined) {
      this.#hello.resolve();
      return;
    }
    const text = (encoded: string): string => Buffer.from(encoded, "base64").toString("utf8");
    const { id, code, stdout, stderr } = message;
    this.#answers.get(id)?.({ code, stdout: text(stdout), stderr: text(stderr) });
  }
}

/**
 * The kernel counts on the clock that the emulator gives it, and leaves out work-arounds that an
 * emulated processor does not need: half of the boot's time.
 */
const kernelWords = [
  ...["root=/dev/vda", "rw", "console=ttyS0", "quiet", "panic=-1", "net.ifnames=0"],
  ...["mitigations=off", "nowatchdog", "no_timer_check", "systemd.unified_cgroup_hierarchy=1"],
];

/** Less to translate than of `max`; what Debian and Node need. */
const plainCpu = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+rdrand,+arat";
/**
 * QEMU emulates AMD's virtualisation with nested paging, which Debian's kvm_amd runs on.
 * Firecracker needs XSAVE too, with which Linux does not boot on the model above.
 */
const kvmCpu = "EPYC,+svm,+npt";

function argvOf(spec: MachineSpec, agentSocket: string): string[] {
  const [root, files] = spec.disks;
  return [
    "qemu-system-x86_64",
    ...["-M", "pc", "-cpu", spec.kvm ? kvmCpu : plainCpu, "-accel", "tcg,thread=multi,tb-size=256"],
    ...["-smp", String(spec.cpus), "-m", String(spec.memoryMib)],
    ...["-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio"],
    ...["-drive", `if=none,id=root,file=${root},format=raw,cache=unsafe`],
    ...["-device", "virtio-blk-pci,drive=root"],
    ...["-drive", `if=none,id=files,file=${files},format=raw,readonly=on`],
    ...["-device", "virtio-blk-pci,drive=files"],
    ...["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"],
    ...["-chardev", `socket,id=agent,path=${agentSocket},server=on,wait=off`],
    ...["-device", "virtserialport,chardev=agent,name=dev.forkd.test"],
    ...["-kernel", spec.image.kernel, "-initrd", spec.image.initrd],
    ...["-append", [...kernelWords, ...spec.kernelWords].join(" ")],
  ];
}

async function connected(path: string): Promise<Socket> {
  const socket = connect(path);
  await once(socket, "connect");
  return socket;
}
