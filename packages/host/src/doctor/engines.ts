import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { toForkdError } from "@forkd/api";
import { engineVariables } from "../config/engine-settings.ts";
import { faultsOf, formatVersion, parseVersion, refusalOf } from "../engine/firecracker/version.ts";
import { findPrograms, openEngines } from "../fork/engines.ts";
import { resolveKernel } from "../kernel/resolve.ts";
import { run } from "../lib/exec.ts";
import { type NativeName, nativeNames, nativeTool } from "../lib/native.ts";
import { findOnPath } from "../lib/programs.ts";
import { findDefaultKernel } from "../store/kernels.ts";
import { type Check, type Finding, fail, pass, skip, warn } from "./check.ts";
import { ask, type DoctorScope } from "./scope.ts";

/** The QEMU of Debian 12, on which forkd is tested; older ones lack what it asks of `microvm`. */
const qemuOldest = "7.2.0";
const versionTimeoutMs = 4_000;
/** An initramfs may be built before the trials. */
const initramfsTimeoutMs = 24_000;

/** A trial of KVM takes all its time where it hangs, for each engine. */
function trialsTimeoutMs({ engines }: DoctorScope): number {
  return 2 * engines.kvmTrialMs + initramfsTimeoutMs;
}

export const engineChecks: readonly Check[] = [
  { name: "helpers", run: helpers },
  { name: "qemu", run: qemu },
  { name: "firecracker", run: firecracker },
  { name: "guest-kernel", run: guestKernel },
  { name: "engine", run: engine, timeoutMs: trialsTimeoutMs },
  { name: "vhost-vsock", run: vhostVsock },
];

async function helpers(): Promise<Finding> {
  const present = await Promise.all(nativeNames.map(isUsable));
  const absent = nativeNames.filter((_, i) => present[i] !== true);
  if (absent.length === 0) return pass(`${nativeNames.length} helpers are built`);
  return fail(`not built: ${absent.join(", ")}`, "npm run native  # in the checkout of forkd");
}

/** Libraries are read, programs are started. */
async function isUsable(name: NativeName): Promise<boolean> {
  const mode = name.endsWith(".so") ? constants.R_OK : constants.X_OK;
  return await access(nativeTool(name), mode).then(
    () => true,
    () => false,
  );
}

const installQemu = "sudo apt-get install -y qemu-system-x86";

async function qemu(scope: DoctorScope): Promise<Finding> {
  const said = await ask(scope, ["qemu-system-x86_64", "--version"]);
  if (said === undefined) {
    const needed = scope.engines.choice !== "firecracker";
    return (needed ? fail : skip)("qemu-system-x86_64 is not on PATH", installQemu);
  }
  const version = /version (\d+\.\d+\.\d+)/.exec(said.stdout)?.[1];
  if (version === undefined) return warn("QEMU does not say its version", installQemu);
  const old = version.localeCompare(qemuOldest, "en", { numeric: true }) < 0;
  return old ? warn(`QEMU ${version} is older than ${qemuOldest}`, installQemu) : pass(version);
}

async function firecracker({ paths, engines, path }: DoctorScope): Promise<Finding> {
  const programs = await findPrograms(paths, engines, path);
  const install = "forkd firecracker install";
  if (programs === null) {
    if (engines.choice === "firecracker" || engines.firecracker !== null) {
      return fail(`there is none, and ${engineVariables.choice} asks for it`, install);
    }
    return skip("not installed; QEMU runs guests without it", install);
  }
  const { stdout } = await run([programs.firecracker, "--version"], {
    timeoutMs: versionTimeoutMs,
  });
  const version = parseVersion(stdout);
  const refusal = refusalOf(version);
  if (refusal !== null) return fail(`${programs.firecracker}: ${refusal}`, install);
  const [fault] = faultsOf(version);
  if (fault !== undefined) return warn(fault.reason, install);
  const jailed = engines.jailed && programs.jailer === null;
  if (jailed) return fail(`there is no jailer beside ${programs.firecracker}`, install);
  return pass(`${formatVersion(version)}, ${programs.firecracker}`);
}

async function guestKernel({ paths }: DoctorScope): Promise<Finding> {
  const stored = await findDefaultKernel(paths);
  if (stored === undefined) return fail(`none in ${paths.kernelsDir}`, "forkd kernel install");
  return pass(`${stored.record.id}`);
}

/** Which engine new parents get, found out by running a guest. */
async function engine(scope: DoctorScope): Promise<Finding> {
  const { paths, engines, path } = scope;
  if ((await findDefaultKernel(paths)) === undefined) {
    return skip("without a guest kernel none can be tried", "forkd kernel install");
  }
  if ((await findOnPath("qemu-system-x86_64", path)) === undefined && engines.choice === "qemu") {
    return fail("QEMU is asked for and not installed", installQemu);
  }
  try {
    const guest = await resolveKernel(paths);
    const { probe } = await openEngines(paths, engines, path).choose({
      kernel: guest,
    });
    const said = `new parents: ${probe.engine} ${probe.version} with ${probe.accel}`;
    if (probe.accel === "kvm") return pass(`${said}; ${probe.reasons.join("; ")}`);
    return warn(`${said}, in software: ${probe.reasons.join("; ")}`, "forkd doctor --only kvm");
  } catch (error) {
    const { message, hint } = toForkdError(error);
    return fail(message, hint);
  }
}

async function vhostVsock({ roots }: DoctorScope): Promise<Finding> {
  const device = join(roots.dev, "vhost-vsock");
  const there = await access(device).then(
    () => true,
    () => false,
  );
  if (there) return pass(`${device} is there`);
  return skip("not there; neither engine's channel needs it", "sudo modprobe vhost_vsock");
}
