import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { access, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import { replaceFile } from "../../lib/atomic.ts";
import { withDeadline } from "../../lib/deadline.ts";
import { bootId } from "../../linux/proc.ts";
import { agentSpoke } from "../console.ts";
import type { BootKernel, EngineProbe } from "../engine.ts";
import type { FirecrackerApi } from "./api.ts";
import { kernelCommandLine, startInstance } from "./boot.ts";
import { vmFiles } from "./files.ts";
import type { FirecrackerHost } from "./host.ts";
import { answered, launch } from "./launch.ts";
import { formatVersion, parseVersion } from "./version.ts";

const trialMemoryMib = 128;

const verdictSchema = z.object({ works: z.boolean(), reason: z.string() });
type Verdict = z.infer<typeof verdictSchema>;

export interface ProbeOptions {
  readonly cacheDir: string;
  readonly kvmDevice: string;
  /** Until the guest that tries KVM is given up. */
  readonly kvmTrialMs: number;
}

/**
 * Tries for real whether Firecracker runs a guest here; the verdict is kept per boot of the host,
 * binary and guest kernel. Throws engine_unavailable with what was tried.
 */
export async function probeFirecracker(
  host: FirecrackerHost,
  kernel: BootKernel,
  options: ProbeOptions,
): Promise<EngineProbe> {
  const verdict = await cachedVerdict(host, kernel, options);
  if (!verdict.works) throw new ForkdError("engine_unavailable", verdict.reason);
  return {
    engine: "firecracker",
    version: formatVersion(host.version),
    accel: "kvm",
    isolation: "vm",
    reasons: [verdict.reason],
  };
}

async function cachedVerdict(
  host: FirecrackerHost,
  kernel: BootKernel,
  options: ProbeOptions,
): Promise<Verdict> {
  const parts = [bootId(), host.binary, formatVersion(host.version), kernel.vmlinuz, kernel.initrd];
  parts.push(String(options.kvmTrialMs));
  const key = createHash("sha256").update(parts.join("\n")).digest("hex");
  const path = join(options.cacheDir, `firecracker-verdict-${key.slice(0, 16)}.json`);
  const text = await readFile(path, "utf8").catch(() => undefined);
  const cached = text === undefined ? undefined : verdictSchema.safeParse(JSON.parse(text));
  if (cached?.success) return cached.data;
  const verdict = await tryKvm(host, kernel, options);
  await replaceFile(path, JSON.stringify(verdict));
  return verdict;
}

async function tryKvm(
  host: FirecrackerHost,
  kernel: BootKernel,
  { cacheDir, kvmDevice, kvmTrialMs }: ProbeOptions,
): Promise<Verdict> {
  await mkdir(cacheDir, { recursive: true, mode: 0o700 });
  try {
    await access(kvmDevice, constants.R_OK | constants.W_OK);
  } catch {
    return { works: false, reason: `KVM: ${kvmDevice} is missing or not ours to open` };
  }
  const workDir = await mkdtemp(join(cacheDir, "fc-trial-"));
  try {
    return await runTrial(host, kernel, { workDir, timeoutMs: kvmTrialMs });
  } finally {
    await rm(workDir, { recursive: true, force: true });
  }
}

async function runTrial(
  host: FirecrackerHost,
  kernel: BootKernel,
  { workDir, timeoutMs }: { readonly workDir: string; readonly timeoutMs: number },
): Promise<Verdict> {
  const { process, api } = await launch(host, {
    workDir,
    memoryMib: trialMemoryMib,
    dieWithParent: true,
    cgroups: [],
    card: null,
    stdout: "us",
    files: [
      { file: kernel.vmlinux ?? kernel.vmlinuz, name: vmFiles.kernel },
      { file: kernel.initrd, name: vmFiles.initrd },
    ],
    jailFiles: [],
    disk: null,
  });
  try {
    const spoke = agentSpoke(process.stdout);
    await answered(process, startTrial(host, api), "the KVM trial");
    const died = process.ended.then(() => false);
    const works = await withDeadline(Promise.race([spoke, died]), timeoutMs, "the KVM trial");
    if (works) return { works, reason: "KVM: a guest kernel ran to its agent under Firecracker" };
    return { works, reason: `KVM: the trial guest died: ${process.logTail()}` };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { works: false, reason: `KVM: Firecracker ran no trial guest: ${why}` };
  } finally {
    await process.stop();
    api.close();
  }
}

async function startTrial(host: FirecrackerHost, api: FirecrackerApi): Promise<void> {
  const { firecracker_version: runs } = await api.call("version", null);
  if (formatVersion(parseVersion(runs)) !== formatVersion(host.version)) {
    const asked = formatVersion(host.version);
    throw new ForkdError("engine_unavailable", `${host.binary} is ${asked} and runs as ${runs}`);
  }
  await api.call("machineConfig", { vcpu_count: 1, mem_size_mib: trialMemoryMib });
  await api.call("bootSource", {
    kernel_image_path: vmFiles.kernel,
    initrd_path: vmFiles.initrd,
    boot_args: kernelCommandLine({ upperMib: null, scratch: null }),
  });
  await startInstance(api, host);
}
