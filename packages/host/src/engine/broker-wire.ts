import { constants } from "node:os";
import { ForkdError } from "@forkd/api";
import type { ProcessExit } from "./process.ts";
import { filesOf, launcherArgs, type VmmSpawn, vmmEnv } from "./vmm-spawn.ts";

/** What forkd-broker says, see native/forkd-broker.c. */
export type BrokerAnswer =
  | { readonly kind: "started"; readonly id: string; readonly pid: number }
  | { readonly kind: "failed"; readonly id: string; readonly why: string }
  | { readonly kind: "ended"; readonly id: string; readonly exit: ProcessExit };

/** Of one request, as forkd-broker has it. */
const requestBytesMax = 256 * 1024 - 4;
const wordsMax = 512;

export interface BrokerStart {
  readonly id: string;
  readonly request: VmmSpawn;
  /** Names in the work directory. */
  readonly sockets: readonly string[];
  /** Its pid, the parent of what it starts. */
  readonly broker: number;
}

/** The words of a start. */
export function startRequest({ id, request, sockets, broker }: BrokerStart): readonly string[] {
  const env = Object.entries(vmmEnv(request)).map(([name, value]) => `${name}=${value}`);
  const lists = [filesOf(request), sockets, env, launcherArgs(request, broker)];
  const stdout = request.stdout ?? "log";
  const words = lists.flatMap((list) => [String(list.length), ...list]);
  return ["start", id, request.workDir, stdout, ...words];
}

/** Throws engine_failed for words that it would not understand. */
export function encodeRequest(words: readonly string[]): Buffer {
  const body = Buffer.from(words.map((word) => `${word}\0`).join(""));
  const zeros = body.reduce((count, byte) => (byte === 0 ? count + 1 : count), 0);
  if (zeros !== words.length || words.length > wordsMax || body.length > requestBytesMax) {
    throw new ForkdError("engine_failed", "a VMM's command line is too long, or not text");
  }
  const size = Buffer.alloc(4);
  size.writeUInt32LE(body.length);
  return Buffer.concat([size, body]);
}

const signalNames = new Map<number, NodeJS.Signals>();
for (const [name, number] of Object.entries(constants.signals)) {
  // The keys of that table are what the type stands for.
  signalNames.set(number, name as NodeJS.Signals);
}

/** Throws internal for a line that forkd-broker does not print. */
export function parseAnswer(line: string): BrokerAnswer {
  const [, kind, id = "", rest = ""] = /^(started|failed|ended) (\S+) (.*)$/.exec(line) ?? [];
  if (kind === "failed") return { kind, id, why: rest };
  if (kind === "started" && /^\d+$/.test(rest)) return { kind, id, pid: Number(rest) };
  const [, code, signal] = /^(-1|\d+) (-1|\d+)$/.exec(rest) ?? [];
  if (kind !== "ended" || code === undefined) {
    throw new ForkdError("internal", `forkd-broker says: ${line.slice(0, 200)}`);
  }
  return {
    kind,
    id,
    exit: {
      exitCode: code === "-1" ? null : Number(code),
      signal: signalNames.get(Number(signal)) ?? null,
    },
  };
}
