import { randomBytes } from "node:crypto";
import { ForkdError } from "@forkd/api";
import { AgentSession } from "../agent/session.ts";
import type { Vm } from "../engine/engine.ts";
import type { ForkDeps } from "./deps.ts";
import { readRecord, type SandboxRecord, tokensMax, writeRecord } from "./record.ts";
import { claimWorkDir } from "./work-dir.ts";

/** An agent that lives answers in milliseconds; one that a wrong token reached, never. */
const helloTimeoutMs = 5_000;

/** A sandbox of an owner that is gone, taken over. */
export interface AdoptedSandbox {
  readonly vm: Vm;
  readonly session: AgentSession;
  readonly record: SandboxRecord;
}

/** Throws when there is nothing to adopt, or the VM or its agent does not answer. */
export async function adoptSandbox(deps: ForkDeps, workDir: string): Promise<AdoptedSandbox> {
  const record = await readRecord(workDir);
  if (record === undefined) {
    throw new ForkdError("engine_failed", `${workDir} holds no finished sandbox`);
  }
  const vm = await deps.engine.adopt({ process: record.process, workDir });
  // Whatever the last owner had paused it for is not going on any more.
  await vm.resume();
  const session = await attach(vm, workDir, record);
  await claimWorkDir(workDir, deps.owner);
  return { vm, session, record };
}

/**
 * The token of the next attach is on disk before the agent hears of it: a crash in between leaves
 * two that it may be listening for, and both are tried.
 */
async function attach(vm: Vm, workDir: string, record: SandboxRecord): Promise<AgentSession> {
  const next = randomBytes(16);
  const known = record.attachTokens.slice(1 - tokensMax);
  const attachTokens = [...known, next.toString("hex")];
  await writeRecord(workDir, { ...record, attachTokens });
  let failure: unknown;
  for (const token of known.toReversed()) {
    const session = AgentSession.attach(await vm.openChannel(), {
      token: Buffer.from(token, "hex"),
      nextToken: next,
      helloTimeoutMs,
    });
    try {
      await session.hello;
      await writeRecord(workDir, { ...record, attachTokens: [next.toString("hex")] });
      return session;
    } catch (error) {
      failure = error;
      session.close();
    }
  }
  throw failure;
}
