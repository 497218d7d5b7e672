import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { ForkdError } from "@forkd/api";
import { nativeTool } from "../lib/native.ts";
import { identifyProcess } from "../linux/proc.ts";
import { logTail, type ProcessExit, VmmProcess } from "./process.ts";
import { filesOf, firstExtraFd, launcherArgs, type VmmSpawn, vmmEnv } from "./vmm-spawn.ts";

/**
 * Starts a VMM as our child, its sockets as pairs of which we have one end each: for a parent that
 * boots and for trials, which are few, see VmmBroker. Throws engine_failed when the program cannot
 * be started.
 */
export async function startOwnVmm(request: VmmSpawn): Promise<VmmProcess> {
  const { workDir } = request;
  const log = openSync(join(workDir, "vmm.log"), "a", 0o600);
  const files: number[] = [];
  try {
    for (const path of filesOf(request)) files.push(openSync(path, "r"));
    const sockets = Array.from({ length: request.sockets }, () => "pipe" as const);
    const child = spawn(nativeTool("forkd-launch"), launcherArgs(request, process.pid), {
      cwd: workDir,
      env: vmmEnv(request),
      detached: true,
      stdio: ["ignore", stdoutOf(request, log), log, ...sockets, ...files],
    });
    return await started(child, request);
  } finally {
    for (const fd of [log, ...files]) closeSync(fd);
  }
}

function stdoutOf({ stdout = "log" }: VmmSpawn, log: number): number | "ignore" | "pipe" {
  if (stdout === "log") return log;
  return stdout === "us" ? "pipe" : "ignore";
}

async function started(child: ChildProcess, { workDir, sockets }: VmmSpawn): Promise<VmmProcess> {
  if (child.pid === undefined) {
    const { promise, reject } = Promise.withResolvers<never>();
    child.once("error", reject);
    return promise.catch((error: unknown) => {
      throw new ForkdError("engine_failed", `the VMM's launcher did not start: ${error}`, {
        hint: "build it with: make -C native",
        cause: error,
      });
    });
  }
  child.on("error", () => undefined);
  const exited = new Promise<ProcessExit>((resolve) => {
    child.once("exit", (exitCode, signal) => resolve({ exitCode, signal }));
  });
  const identity = identifyProcess(child.pid);
  if (identity === undefined) {
    throw new ForkdError("engine_failed", `the VMM ended at once: ${logTail(workDir)}`);
  }
  return new VmmProcess({
    identity,
    workDir,
    exited,
    kill: () => child.kill("SIGKILL"),
    sockets: Array.from({ length: sockets }, (_, index) => socketOf(child, index)),
    stdout: child.stdout,
    unref: () => child.unref(),
  });
}

function socketOf(child: ChildProcess, index: number): Duplex {
  const socket = child.stdio[firstExtraFd + index];
  if (socket instanceof Duplex) return socket;
  throw new ForkdError("internal", `the VMM has no socket ${index}`);
}
