import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { type Check, type Finding, fail, pass, warn } from "./check.ts";
import { refusalOf } from "./kernel-calls.ts";
import { type DoctorScope, readNumber, readText } from "./scope.ts";

/** The oldest kernel that forkd is meant for: userfaultfd in user mode and openat2 are there. */
const kernelOldest = [5, 10] as const;
/** PAGEMAP_SCAN and asynchronous write protection, which live branches need (Linux 6.7). */
const kernelForLive = [6, 7] as const;
/** No host is set right that is before this: 2025-01-01. Certificates and records would be wrong. */
const clockOldestMs = Date.UTC(2025, 0, 1);
/** What QEMU's and the guest's idea of time is cheap with. */
const cheapClocks = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page"];
/** A thousand sandboxes, each with the threads of its VMM. */
const pidsWanted = 32_768;

export const machineChecks: readonly Check[] = [
  { name: "platform", run: platform },
  { name: "kernel", run: kernel },
  { name: "hw-virt", run: hardwareVirtualisation },
  { name: "kvm", run: kvm },
  { name: "clock", run: clock },
  { name: "clocksource", run: clockSource },
  { name: "pids", run: pids },
];

async function platform({ roots }: DoctorScope): Promise<Finding> {
  const version = await readText(join(roots.proc, "version"));
  if (version === undefined || !version.startsWith("Linux")) {
    return fail("this is no Linux host", "uname -a  # forkd runs on Linux on x86_64 only");
  }
  if (process.arch !== "x64") {
    return fail(`the processor is ${process.arch}`, "uname -m  # forkd runs on x86_64 only");
  }
  return pass(version.slice(0, 80));
}

async function kernel({ roots }: DoctorScope): Promise<Finding> {
  const release = (await readText(join(roots.proc, "sys/kernel/osrelease"))) ?? "";
  const [, major = "0", minor = "0"] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  const version = [Number(major), Number(minor)] as const;
  const update = "sudo apt-get install -y linux-image-amd64  # or your distribution's; then reboot";
  if (isOlder(version, kernelOldest)) return fail(`Linux ${release} is older than 5.10`, update);
  if (isOlder(version, kernelForLive)) {
    return warn(`Linux ${release}: live branches need 6.7, others work`, update);
  }
  return pass(`Linux ${release}`);
}

type KernelVersion = readonly [number, number];

function isOlder([major, minor]: KernelVersion, [wantMajor, wantMinor]: KernelVersion): boolean {
  return major < wantMajor || (major === wantMajor && minor < wantMinor);
}

const softwareOnly = "guests run in software, several times slower";

async function hardwareVirtualisation({ roots }: DoctorScope): Promise<Finding> {
  const cpu = (await readText(join(roots.proc, "cpuinfo"))) ?? "";
  const flags = /^flags\s*:(.*)$/m.exec(cpu)?.[1]?.split(" ") ?? [];
  const found = ["vmx", "svm"].find((flag) => flags.includes(flag));
  if (found !== undefined) return pass(`the processor has ${found}`);
  const hint = "grep -cE 'vmx|svm' /proc/cpuinfo  # enable VT-x or AMD-V, or nested virtualisation";
  return warn(`the processor shows neither vmx nor svm: ${softwareOnly}`, hint);
}

async function kvm({ roots, engines }: DoctorScope): Promise<Finding> {
  const device = join(roots.dev, "kvm");
  const bad = engines.choice === "firecracker" ? fail : warn;
  const open = async (mode: number): Promise<boolean> =>
    await access(device, mode).then(
      () => true,
      () => false,
    );
  if (await open(constants.R_OK | constants.W_OK)) return pass(`${device} opens`);
  if (await open(constants.F_OK)) {
    return bad(
      `${device} is not ours to open`,
      'sudo usermod -aG kvm "$USER"  # then log in again',
    );
  }
  const hint = "sudo modprobe kvm_intel || sudo modprobe kvm_amd";
  return bad(`${device} is missing: ${softwareOnly}`, hint);
}

async function clock(): Promise<Finding> {
  const now = new Date();
  const install = "sudo apt-get install -y chrony  # or: sudo timedatectl set-ntp true";
  if (now.getTime() < clockOldestMs) return fail(`the clock says ${now.toISOString()}`, install);
  const refusal = await refusalOf("clock");
  if (refusal === undefined) return pass("the kernel's clock is kept in step");
  return warn("nothing keeps the clock in step, and guests get their time from it", install);
}

async function clockSource({ roots }: DoctorScope): Promise<Finding> {
  const file = join(roots.sys, "devices/system/clocksource/clocksource0/current_clocksource");
  const source = await readText(file);
  if (source === undefined) return warn("the kernel does not tell its clock source", `cat ${file}`);
  if (cheapClocks.includes(source)) return pass(source);
  return warn(`${source} is slow to read, for every guest`, `echo tsc | sudo tee ${file}`);
}

async function pids({ roots }: DoctorScope): Promise<Finding> {
  const max = await readNumber(join(roots.proc, "sys/kernel/pid_max"));
  const threads = await readNumber(join(roots.proc, "sys/kernel/threads-max"));
  const least = Math.min(max ?? 0, threads ?? 0);
  if (least >= pidsWanted) return pass(`up to ${least} processes and threads`);
  const set = `sudo sysctl -w kernel.pid_max=4194304 kernel.threads-max=${4 * pidsWanted}`;
  return warn(`up to ${least} processes and threads, few for a thousand sandboxes`, set);
}
