import { createInterface, type Interface } from "node:readline";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import { type NativeProcess, startNative } from "../process.ts";

const stderrCharsMax = 4096;
/** It ends by itself 15 s after it was asked to, see native/capture/guard.c. */
const killAfterMs = 20_000;

/** What native/capture/main.c says on stdout. */
const eventSchema = z.discriminatedUnion("event", [
  z.object({ event: z.literal("ready"), rounds: z.int(), left_bytes: z.int() }),
  z.object({ event: z.literal("resumed"), pause_us: z.int(), held_us: z.int() }),
  z.object({
    event: z.literal("done"),
    bytes: z.int(),
    extents: z.int(),
    rounds: z.int(),
    dirty_bytes: z.int(),
    copied_bytes: z.int(),
  }),
  z.object({
    event: z.literal("error"),
    code: z.string(),
    message: z.string(),
    running: z.boolean(),
    pivoted: z.int(),
  }),
]);
export type CaptureEvent = z.infer<typeof eventSchema>;

/** One run of forkd-capture: its events, and the ways to say `go` and `end`. */
export class CaptureProcess {
  readonly #child: NativeProcess;
  readonly #lines: Interface;
  readonly #exited: Promise<string>;
  #stderr = "";
  #killTimer: NodeJS.Timeout | undefined;

  constructor(args: readonly string[], workDir: string) {
    this.#child = startNative("forkd-capture", args, workDir);
    this.#child.stdin.on("error", () => undefined);
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-stderrCharsMax);
    });
    this.#lines = createInterface({ input: this.#child.stdout });
    this.#exited = new Promise((resolve) => {
      this.#child.once("error", (error) => resolve(`did not start: ${error.message}`));
      this.#child.once("close", (code, signal) => resolve(signal ?? `exit ${code}`));
    });
  }

  /** The events, until the program has ended. Throws engine_failed for what is no event. */
  async *events(): AsyncGenerator<CaptureEvent> {
    for await (const line of this.#lines) {
      const parsed = eventSchema.safeParse(parseJson(line));
      if (!parsed.success) {
        throw new ForkdError("engine_failed", `forkd-capture said: ${line.slice(0, 200)}`);
      }
      yield parsed.data;
    }
  }

  go(): void {
    this.#child.stdin.write("go\n");
  }

  /** Asks it to end, which resumes the VM and removes its files; after a while it has to. */
  end(): void {
    this.#child.kill("SIGTERM");
    this.#killTimer ??= setTimeout(() => this.#child.kill("SIGKILL"), killAfterMs);
  }

  /** How it ended, in words. */
  async exited(): Promise<string> {
    const how = await this.#exited;
    clearTimeout(this.#killTimer);
    return this.#stderr === "" ? how : `${how}: ${this.#stderr.trim()}`;
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
