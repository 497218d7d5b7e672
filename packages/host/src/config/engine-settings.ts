import { isAbsolute } from "node:path";
import { ForkdError } from "@forkd/api";
import type { Env } from "./data-paths.ts";

export const engineChoices = ["auto", "qemu", "firecracker"] as const;
export type EngineChoice = (typeof engineChoices)[number];

/** Which VMM runs new parents, and how Firecracker is run. */
export interface EngineSettings {
  /** `auto`: Firecracker where it works, else QEMU. Children are run by what froze their parent. */
  readonly choice: EngineChoice;
  /** Absolute path of Firecracker; null takes what is installed, then what PATH has. */
  readonly firecracker: string | null;
  /** Whether each Firecracker is locked in by the jailer that is beside it. */
  readonly jailed: boolean;
  /** A CPU template's name, or the absolute path of one; null shows guests the host's CPU. */
  readonly cpuTemplate: string | null;
  /** Until a guest that is run to try KVM is given up, milliseconds. */
  readonly kvmTrialMs: number;
}

/** What stands in for each setting. */
export const engineVariables = {
  choice: "FORKD_ENGINE",
  firecracker: "FORKD_FIRECRACKER",
  unjailed: "FORKD_FIRECRACKER_UNJAILED",
  cpuTemplate: "FORKD_CPU_TEMPLATE",
  kvmTrial: "FORKD_KVM_TRIAL_SECS",
} as const;

/**
 * A guest under KVM says its first word in under a second. Where KVM opens but cannot run a stock
 * kernel, it dies at once or crawls for half a minute: that is not worth waiting for, unless the
 * operator knows that this KVM is nested in something slow.
 */
const kvmTrialDefaultSecs = 8;
/** What is slower than this is slower than emulation. */
const kvmTrialMaxSecs = 600;

export const engineDefaults: EngineSettings = {
  choice: "auto",
  firecracker: null,
  jailed: true,
  cpuTemplate: null,
  kvmTrialMs: kvmTrialDefaultSecs * 1000,
};

/** Throws config_invalid that names the variable. An empty variable counts as unset. */
export function resolveEngineSettings(env: Env): EngineSettings {
  const firecracker = env[engineVariables.firecracker] || null;
  if (firecracker !== null && !isAbsolute(firecracker)) {
    throw invalid(engineVariables.firecracker, firecracker, "give a whole path");
  }
  return {
    choice: parseChoice(env[engineVariables.choice] || "auto"),
    firecracker,
    jailed: !parseSwitch(env[engineVariables.unjailed] || "0"),
    cpuTemplate: env[engineVariables.cpuTemplate] || null,
    kvmTrialMs: parseTrial(env[engineVariables.kvmTrial] || String(kvmTrialDefaultSecs)) * 1000,
  };
}

function parseChoice(text: string): EngineChoice {
  const choice = engineChoices.find((known) => known === text);
  if (choice !== undefined) return choice;
  throw invalid(engineVariables.choice, text, `choose one of ${engineChoices.join(", ")}`);
}

function parseSwitch(text: string): boolean {
  if (text === "1" || text === "true") return true;
  if (text === "0" || text === "false") return false;
  throw invalid(engineVariables.unjailed, text, "say 1 or 0");
}

function parseTrial(text: string): number {
  const seconds = Number(text);
  if (/^\d+$/.test(text) && seconds >= 1 && seconds <= kvmTrialMaxSecs) return seconds;
  throw invalid(engineVariables.kvmTrial, text, `give whole seconds, 1 to ${kvmTrialMaxSecs}`);
}

function invalid(name: string, value: string, hint: string): ForkdError {
  const said = JSON.stringify(value.slice(0, 200));
  return new ForkdError("config_invalid", `${name}=${said} is not known`, { hint });
}
