import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { access, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import { replaceFile } from "../../lib/atomic.ts";
import { withDeadline } from "../../lib/deadline.ts";
import { run } from "../../lib/exec.ts";
import { bootId } from "../../linux/proc.ts";
import { agentSpoke } from "../console.ts";
import type { BootKernel, EngineProbe } from "../engine.ts";
import { startOwnVmm } from "../own-vmm.ts";

const trialMemoryMib = 128;

const verdictSchema = z.object({ works: z.boolean(), reason: z.string() });
type Verdict = z.infer<typeof verdictSchema>;

export interface TrialOptions {
  /** Verdicts are kept here. */
  readonly cacheDir: string;
  /** Until the guest that tries KVM is given up. */
  readonly kvmTrialMs: number;
}

/** Tries QEMU and KVM for real; the KVM verdict is kept per boot of the host and guest kernel. */
export async function probeQemu(kernel: BootKernel, options: TrialOptions): Promise<EngineProbe> {
  const version = await qemuVersion();
  const verdict = await cachedVerdict(kernel, options);
  return {
    engine: "qemu",
    version,
    accel: verdict.works ? "kvm" : "tcg",
    isolation: verdict.works ? "vm" : "vm-emulated",
    reasons: [verdict.reason],
  };
}

/** Throws engine_unavailable when QEMU is not installed. */
export async function qemuVersion(): Promise<string> {
  try {
    const { stdout } = await run(["qemu-system-x86_64", "--version"], { timeoutMs: 10_000 });
    return /version (\d+\.\d+\.\d+)/.exec(stdout)?.[1] ?? "unknown";
  } catch (error) {
    throw new ForkdError("engine_unavailable", "QEMU is not installed", { cause: error });
  }
}

async function cachedVerdict(kernel: BootKernel, options: TrialOptions): Promise<Verdict> {
  const { cacheDir, kvmTrialMs } = options;
  const key = createHash("sha256")
    .update(`${bootId()}\n${kernel.vmlinuz}\n${kernel.initrd}\n${kvmTrialMs}`)
    .digest("hex");
  const path = join(cacheDir, `kvm-verdict-${key.slice(0, 16)}.json`);
  const text = await readFile(path, "utf8").catch(() => undefined);
  const cached = text === undefined ? undefined : verdictSchema.safeParse(JSON.parse(text));
  if (cached?.success) return cached.data;
  const verdict = await tryKvm(kernel, options);
  await replaceFile(path, JSON.stringify(verdict));
  return verdict;
}

async function tryKvm(
  kernel: BootKernel,
  { cacheDir, kvmTrialMs }: TrialOptions,
): Promise<Verdict> {
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return { works: false, reason: "KVM: /dev/kvm is missing or not ours to open" };
  }
  await mkdir(cacheDir, { recursive: true, mode: 0o700 });
  const workDir = await mkdtemp(join(cacheDir, "kvm-trial-"));
  try {
    return await runTrial(kernel, workDir, kvmTrialMs);
  } finally {
    await rm(workDir, { recursive: true, force: true });
  }
}

async function runTrial(kernel: BootKernel, workDir: string, timeoutMs: number): Promise<Verdict> {
  const trial = await startOwnVmm({
    // Under KVM no clock is the default of `microvm`: the kernel would wait a second for one.
    argv: [
      "qemu-system-x86_64",
      ...["-M", "microvm,rtc=on,isa-serial=on", "-accel", "kvm", "-cpu", "host"],
      ...[
        "-m",
        String(trialMemoryMib),
        "-nodefaults",
        "-no-user-config",
        "-nographic",
        "-no-reboot",
      ],
      ...["-chardev", "socket,id=console,fd=3", "-serial", "chardev:console"],
      ...["-kernel", kernel.vmlinuz, "-initrd", kernel.initrd],
      ...["-append", "console=ttyS0 quiet panic=-1 reboot=t"],
    ],
    workDir,
    dieWithParent: true,
    cgroups: [],
    sockets: 1,
    files: [],
    preload: null,
  });
  try {
    const spoke = agentSpoke(trial.socket(0));
    const died = trial.ended.then(() => false);
    const works = await withDeadline(Promise.race([spoke, died]), timeoutMs, "the KVM trial");
    if (works) return { works, reason: "KVM: a guest kernel ran to its agent" };
    return { works, reason: `KVM: the trial guest died: ${lastLine(trial.logTail())}` };
  } catch {
    return { works: false, reason: `KVM: the trial guest said nothing in ${timeoutMs} ms` };
  } finally {
    await trial.stop();
  }
}

function lastLine(text: string): string {
  return text.split("\n").find((line) => /error/i.test(line)) ?? text.split("\n").at(-1) ?? "";
}
