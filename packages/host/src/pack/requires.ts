import { limits } from "@forkd/api";
import type { Manifest } from "../store/manifest.ts";
import type { Requires } from "./manifest.ts";

/** Of docs/guest-protocol.md. */
const agentProtocol = 1;

/** What a host can run; asked for before anything of a pack is taken. */
export interface HostFacts {
  /** As Node names it. */
  readonly arch: string;
  /** The version of an engine, or undefined with nothing of it installed. */
  readonly engineVersion: (name: Requires["engine"]) => Promise<string | undefined>;
  /** Whether there is hardware virtualisation that this process may use. */
  readonly hasKvm: boolean;
  /** The kernel's names of what the CPU can do. */
  readonly cpuFlags: ReadonlySet<string>;
  readonly memoryMib: number;
}

/** Why a host cannot run a snapshot. */
export interface Objection {
  readonly what: string;
  /** Whether it may be taken all the same, to be kept or to be run once the host has changed. */
  readonly isForceable: boolean;
}

/** What the children of a snapshot need of a host. */
export function requiresOf(manifest: Manifest, hostFlags: ReadonlySet<string>): Requires {
  const { engine, machine, agent } = manifest;
  return {
    arch: process.arch,
    engine: engine.name,
    engine_version: engine.version,
    accel: machine.accel,
    cpu: machine.cpu,
    // An emulated CPU is the engine's, the same on every host.
    cpu_flags: machine.accel === "kvm" ? [...hostFlags].sort() : [],
    memory_mib: machine.memory_mib,
    agent_protocol: agent.protocol,
  };
}

/** All that stands against running it here; empty when nothing does. */
export async function objectionsTo(requires: Requires, host: HostFacts): Promise<Objection[]> {
  const objections: Objection[] = [];
  const object = (what: string, isForceable = true): void => {
    objections.push({ what, isForceable });
  };
  const { arch, engine, engine_version: version, memory_mib: memoryMib } = requires;
  if (arch !== host.arch) object(`it is of a ${arch} host, this one is ${host.arch}`, false);
  if (requires.agent_protocol !== agentProtocol) {
    const theirs = requires.agent_protocol;
    object(`its agent speaks protocol ${theirs}, this forkd speaks ${agentProtocol}`, false);
  }
  if (memoryMib > limits.memoryMaxMib) {
    object(`its ${memoryMib} MiB of RAM are more than ${limits.memoryMaxMib}`, false);
  } else if (memoryMib > host.memoryMib) {
    object(`its ${memoryMib} MiB of RAM are more than the ${host.memoryMib} of this host`);
  }
  const here = await host.engineVersion(engine);
  if (here === undefined) object(`it needs ${engine} ${version}, which this host has not`);
  else if (here !== version) object(`it needs ${engine} ${version}, this host has ${here}`);
  if (requires.accel === "kvm" && !host.hasKvm) object("it needs KVM, which this host has not");
  const missing = requires.cpu_flags.filter((flag) => !host.cpuFlags.has(flag));
  if (missing.length > 0) {
    const shown = missing.slice(0, 8).join(" ");
    object(`it needs what this host's CPU has not: ${shown}${missing.length > 8 ? " ..." : ""}`);
  }
  return objections;
}
