import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import type { z } from "zod";
import { cpuConfigSchema, cpuTemplateNames, type machineConfigSchema } from "./contract.ts";

/**
 * The CPU that a guest sees, in a machine's `cpu`, which a manifest keeps:
 *
 * - `host:VENDOR-FAMILY-MODEL-STEPPING`: the host's own; only an equal host can restore it
 * - `template:NAME`: one of Firecracker's, which unlike hosts can show
 * - `custom:SHA256:PATH`: a template of the operator's, by its content
 */
const hostPrefix = "host:";
const templatePrefix = "template:";
const customPattern = /^custom:([0-9a-f]{64}):(\/.{1,180})$/;
const templateBytesMax = 1024 * 1024;

type TemplateName = NonNullable<z.infer<typeof machineConfigSchema>["cpu_template"]>;
type CpuConfig = z.infer<typeof cpuConfigSchema>;

let cached: string | undefined;

/** From /proc/cpuinfo: what a state that was saved here depends on. */
export function hostCpu(): string {
  cached ??= parseHostCpu(readFileSync("/proc/cpuinfo", "utf8"));
  return cached;
}

export function parseHostCpu(text: string): string {
  const field = (name: string): string =>
    new RegExp(`^${name}\\s*: (.*)$`, "m").exec(text)?.[1]?.trim() ?? "unknown";
  const names = ["vendor_id", "cpu family", "model", "stepping"];
  return `${hostPrefix}${names.map((name) => field(name)).join("-")}`;
}

/** The `cpu` of new parents. Throws config_invalid for what is neither a name nor a template's file. */
export async function cpuOf(choice: string | null): Promise<string> {
  if (choice === null || choice === "None") return hostCpu();
  if (cpuTemplateNames.some((name) => name === choice)) return `${templatePrefix}${choice}`;
  if (!choice.startsWith("/")) {
    const names = cpuTemplateNames.join(", ");
    const message = `${choice} is no CPU template: give one of ${names}, or a file's whole path`;
    throw new ForkdError("config_invalid", message);
  }
  const text = await readTemplate(choice);
  parseTemplate(choice, text);
  return `custom:${sha256(text)}:${choice}`;
}

/** What Firecracker is told for a machine. Throws snapshot_incompatible for another template. */
export async function machineCpu(
  cpu: string,
): Promise<{ readonly template: TemplateName | null; readonly custom: CpuConfig | null }> {
  if (cpu.startsWith(templatePrefix)) {
    const name = cpu.slice(templatePrefix.length);
    const template = cpuTemplateNames.find((known) => known === name) ?? null;
    return { template, custom: null };
  }
  const [, hash, path] = customPattern.exec(cpu) ?? [];
  if (hash === undefined || path === undefined) return { template: null, custom: null };
  const text = await readTemplate(path);
  if (sha256(text) === hash) return { template: null, custom: parseTemplate(path, text) };
  throw new ForkdError("snapshot_incompatible", `the CPU template ${path} has changed`);
}

/** Throws snapshot_incompatible when this host cannot show a guest the CPU that it was frozen with. */
export function requireCpu(cpu: string): void {
  if (!cpu.startsWith(hostPrefix) || cpu === hostCpu()) return;
  const was = cpu.slice(hostPrefix.length);
  const here = hostCpu().slice(hostPrefix.length);
  const message = `the snapshot is of a host with CPU ${was}, this one has ${here}`;
  throw new ForkdError("snapshot_incompatible", message, {
    hint: "bake it again here, or with a CPU template that both can show",
  });
}

async function readTemplate(path: string): Promise<string> {
  const text = await readFile(path, "utf8");
  if (text.length <= templateBytesMax) return text;
  throw new ForkdError("config_invalid", `${path} is over ${templateBytesMax} bytes`);
}

function parseTemplate(path: string, text: string): CpuConfig {
  try {
    return cpuConfigSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new ForkdError("config_invalid", `${path} is no CPU template`, { cause: error });
  }
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
