import { ForkdError } from "@forkd/api";
import { run } from "../../lib/exec.ts";
import { nativeTool } from "../../lib/native.ts";

const measureTimeoutMs = 10_000;
let measured: Promise<number> | undefined;

/** Frequency of the host's time stamp counter in kHz, which QEMU's emulation gives its guests. */
export function hostTscKhz(): Promise<number> {
  measured ??= measure();
  return measured;
}

async function measure(): Promise<number> {
  const { stdout } = await run([nativeTool("forkd-tsc")], { timeoutMs: measureTimeoutMs });
  const khz = Number(stdout.trim());
  if (Number.isInteger(khz) && khz > 0) return khz;
  throw new ForkdError("engine_failed", "the host's time stamp counter could not be measured");
}
