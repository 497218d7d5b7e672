/** Upstream's Python packages from PyPI, as they are, in an environment of their own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { z } from "zod";
import { repoRoot } from "./baked.ts";
import { pythonEnv } from "./python-env.ts";

/** The latest of each; `mcp` is what forkd-mcp is built on. */
const packages = ["forkd==0.5.3", "forkd-mcp==0.2.1", "mcp==1.30.0"];
const callTimeoutMs = 120_000;
const stopTimeoutMs = 10_000;

export interface PythonClients {
  readonly python: string;
  /** The unmodified `forkd-mcp`. */
  readonly mcpServer: string;
}

/** The environment, made once a checkout; else why there is none, for node:test's `skip`. */
export async function pythonClients(): Promise<PythonClients | { readonly skip: string }> {
  const env = await pythonEnv(packages);
  if ("skip" in env) return env;
  return { python: join(env.dir, "bin/python"), mcpServer: join(env.dir, "bin/forkd-mcp") };
}

const raisedSchema = z.object({
  raised: z.string(),
  message: z.string(),
  status: z.int().optional(),
  body: z.unknown().optional(),
});
const answerSchema = z.union([z.object({ value: z.unknown() }), raisedSchema]);

/** What the package raised. */
export class PythonError extends Error {
  readonly raised: string;
  readonly status: number | undefined;
  readonly body: unknown;

  constructor(answer: z.infer<typeof raisedSchema>) {
    super(answer.message);
    this.name = answer.raised;
    this.raised = answer.raised;
    this.status = answer.status;
    this.body = answer.body;
  }
}

/** A Python process that calls the `forkd` package for us; see test/fixtures/python-client.py. */
export class PythonSession implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  /** `before` are words that run the rest as a command, such as `nice`. */
  constructor(
    { python }: PythonClients,
    env: Readonly<Record<string, string>>,
    before: readonly string[] = [],
  ) {
    const script = join(repoRoot, "test/fixtures/python-client.py");
    const [program = python, ...words] = [...before, python, script];
    this.#child = spawn(program, words, {
      env: { PATH: process.env["PATH"], HOME: process.env["HOME"], ...env },
      stdio: ["pipe", "pipe", "inherit"],
      // A group of its own, so that what the package starts can be ended with it.
      detached: true,
    });
    if (this.#child.stdout === null) throw new Error("there is no pipe from python");
    this.#lines = createInterface({ input: this.#child.stdout });
  }

  async make(name: string, of: string, kwargs: object = {}): Promise<void> {
    await this.#ask({ new: name, of, kwargs });
  }

  /** Calls `object.method(...args, **kwargs)` and gives its JSON. Throws {@link PythonError}. */
  call(path: string, args: readonly unknown[] = [], kwargs: object = {}): Promise<unknown> {
    const [on = "", ...method] = path.split(".");
    return this.#ask({ on, call: method.join("."), args, kwargs });
  }

  async #ask(request: object): Promise<unknown> {
    const answered = once(this.#lines, "line", { signal: AbortSignal.timeout(callTimeoutMs) });
    this.#child.stdin?.write(`${JSON.stringify(request)}\n`);
    const [line] = await answered;
    const answer = answerSchema.parse(JSON.parse(String(line)));
    if ("raised" in answer) throw new PythonError(answer);
    return answer.value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin?.end();
    const force = setTimeout(() => this.#killGroup("SIGKILL"), stopTimeoutMs);
    const { exitCode, signalCode } = this.#child;
    if (exitCode === null && signalCode === null) await once(this.#child, "exit");
    clearTimeout(force);
    this.#killGroup("SIGTERM");
  }

  #killGroup(signal: NodeJS.Signals): void {
    try {
      if (this.#child.pid !== undefined) process.kill(-this.#child.pid, signal);
    } catch {
      // Nothing is left of it.
    }
  }
}
