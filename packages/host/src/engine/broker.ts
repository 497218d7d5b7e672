import { type ChildProcessByStdio, spawn } from "node:child_process";
import { unlink } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { ForkdError } from "@forkd/api";
import { withDeadline } from "../lib/deadline.ts";
import { nativeTool } from "../lib/native.ts";
import { identifyProcess, isAlive, type ProcessIdentity } from "../linux/proc.ts";
import { type BrokerAnswer, encodeRequest, parseAnswer, startRequest } from "./broker-wire.ts";
import { logTail, type ProcessExit, VmmProcess } from "./process.ts";
import type { VmmSpawn } from "./vmm-spawn.ts";

/** It forks and answers at once; a host out of memory may take a while. */
const answerTimeoutMs = 30_000;
/** What waits in its socket is taken up by nobody until the VMM runs. */
const connectTimeoutMs = 10_000;
const unknownExit: ProcessExit = { exitCode: null, signal: null };

type BrokerProcess = ChildProcessByStdio<Writable, Readable, null>;

/** What is known here of one process that a broker looks after. */
interface Ward {
  readonly answered: PromiseWithResolvers<number>;
  readonly exited: PromiseWithResolvers<ProcessExit>;
  identity: ProcessIdentity | null;
}

/**
 * Starts the VMMs of children by forkd-broker (native/forkd-broker.c), a program of ours: a fork of
 * this process, with all its memory, would hold up its event loop for milliseconds each. The
 * program is started when it is first needed, and again when it was killed: the next one then tells
 * of the ends of the VMMs that are there. It goes with this process.
 */
export class VmmBroker {
  readonly #wards = new Map<string, Ward>();
  #program: BrokerProcess | null = null;
  #lastId = 0;
  #pending = 0;

  /**
   * The sockets of such a VMM are listening ones, so that it need not be awaited to speak to them.
   * Throws engine_failed when the program cannot be started.
   */
  readonly start = async (request: VmmSpawn): Promise<VmmProcess> => {
    const id = String(++this.#lastId);
    const ward: Ward = {
      answered: Promise.withResolvers(),
      exited: Promise.withResolvers(),
      identity: null,
    };
    this.#wards.set(id, ward);
    try {
      return await this.#start(id, ward, request);
    } catch (error) {
      this.#wards.delete(id);
      throw error;
    }
  };

  async #start(id: string, ward: Ward, request: VmmSpawn): Promise<VmmProcess> {
    const { workDir } = request;
    const names = Array.from({ length: request.sockets }, (_, index) => `start-${index}.sock`);
    const pid = await this.#ask(id, ward, (broker) =>
      startRequest({ id, request, sockets: names, broker }),
    );
    ward.identity = identifyProcess(pid) ?? null;
    if (ward.identity === null) {
      throw new ForkdError("engine_failed", `the VMM ended at once: ${logTail(workDir)}`);
    }
    const kill = (): void => this.#kill(id, ward);
    const sockets: Socket[] = [];
    try {
      for (const name of names) sockets.push(await open(join(workDir, name)));
    } catch (error) {
      for (const socket of sockets) socket.destroy();
      kill();
      throw error;
    }
    return new VmmProcess({
      identity: ward.identity,
      workDir,
      exited: ward.exited.promise,
      kill,
      sockets,
      stdout: null,
      unref: () => undefined,
    });
  }

  /** Sends a request; resolves to the pid that it is about. This process stays for the answer. */
  async #ask(
    id: string,
    ward: Ward,
    words: (brokerPid: number) => readonly string[],
  ): Promise<number> {
    const program = this.#running();
    this.#pending += 1;
    program.ref();
    try {
      program.stdin.write(encodeRequest(words(program.pid ?? 0)));
      return await withDeadline(ward.answered.promise, answerTimeoutMs, `the start of VMM ${id}`);
    } finally {
      this.#pending -= 1;
      if (this.#pending === 0) program.unref();
    }
  }

  #running(): BrokerProcess {
    this.#program ??= this.#launch();
    return this.#program;
  }

  #launch(): BrokerProcess {
    const program = spawn(nativeTool("forkd-broker"), [nativeTool("forkd-launch")], {
      cwd: "/",
      env: {},
      detached: true,
      stdio: ["pipe", "pipe", "inherit"],
    });
    // It must not keep this process: its pipes neither.
    program.unref();
    for (const pipe of [program.stdin, program.stdout]) unrefPipe(pipe);
    program.stdin.on("error", () => undefined);
    createInterface({ input: program.stdout }).on("line", (line) => this.#hear(parseAnswer(line)));
    program.once("error", (error) => this.#lost(program, error.message));
    program.once("exit", (code, signal) => this.#lost(program, `it ended: ${signal ?? code}`));
    return program;
  }

  #hear(answer: BrokerAnswer): void {
    const ward = this.#wards.get(answer.id);
    if (ward === undefined) {
      // Its start was given up before this answer: nobody would end it.
      if (answer.kind === "started") this.#program?.stdin.write(encodeRequest(["kill", answer.id]));
      return;
    }
    if (answer.kind === "started") ward.answered.resolve(answer.pid);
    else if (answer.kind === "ended") this.#ended(answer.id, answer.exit);
    else if (ward.identity !== null) this.#ended(answer.id, unknownExit);
    else ward.answered.reject(notStarted(answer.why));
  }

  #ended(id: string, exit: ProcessExit): void {
    this.#wards.get(id)?.exited.resolve(exit);
    this.#wards.delete(id);
  }

  /** What it had not answered is not there; what it looked after is looked after by the next. */
  #lost(program: BrokerProcess, why: string): void {
    if (this.#program !== program) return;
    this.#program = null;
    for (const [id, ward] of [...this.#wards]) {
      const { identity } = ward;
      if (identity === null) ward.answered.reject(notStarted(why));
      else if (!isAlive(identity)) this.#ended(id, unknownExit);
      else this.#running().stdin.write(encodeRequest(["watch", id, String(identity.pid)]));
    }
  }

  /** By the broker's descriptor of it, which no other process can be mistaken for. */
  #kill(id: string, { identity }: Ward): void {
    if (!this.#wards.has(id)) return;
    if (this.#program !== null) this.#program.stdin.write(encodeRequest(["kill", id]));
    else if (identity !== null && isAlive(identity)) process.kill(identity.pid, "SIGKILL");
  }
}

function notStarted(why: string): ForkdError {
  return new ForkdError("engine_failed", `the VMM's launcher did not start: ${why}`, {
    hint: "build what starts it with: make -C native",
  });
}

/** A pipe of a child process is a socket, which its type does not say. */
function unrefPipe(pipe: Readable | Writable): void {
  if ("unref" in pipe && typeof pipe.unref === "function") pipe.unref();
}

/** Nobody else is to connect: the name goes at once. */
async function open(path: string): Promise<Socket> {
  const socket = connect(path);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once("connect", resolve);
  socket.once("error", reject);
  try {
    await withDeadline(promise, connectTimeoutMs, "a connection to the VMM");
    await unlink(path);
    return socket;
  } catch (error) {
    socket.destroy();
    const message = `the VMM's socket cannot be used: ${String(error)}`;
    throw new ForkdError("engine_failed", message, { cause: error });
  }
}
