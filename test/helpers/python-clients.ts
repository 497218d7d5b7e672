/** Upstream's Python packages from PyPI, as they are, in an environment of their own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { z } from "zod";
import { runChild } from "../runner/child.ts";
import { repoRoot } from "./baked.ts";
import { missing } from "./capabilities.ts";

/** The latest of each; `mcp` is what forkd-mcp is built on. */
const packages = ["forkd==0.5.3", "forkd-mcp==0.2.1", "mcp==1.30.0"];
const installTimeoutMs = 3 * 60_000;
const callTimeoutMs = 120_000;
const stopTimeoutMs = 10_000;

export interface PythonClients {
  readonly python: string;
  /** The unmodified `forkd-mcp`. */
  readonly mcpServer: string;
}

/** The environment, made once a checkout; else why there is none, for node:test's `skip`. */
export async function pythonClients(): Promise<PythonClients | { readonly skip: string }> {
  const lacking = missing({ programs: ["python3"], network: true });
  if (lacking !== false) return { skip: lacking };
  const name = `python-${packages.join("-").replaceAll(/[^a-z0-9.-]/g, "-")}`;
  const dir = join(repoRoot, ".cache", name);
  if (!existsSync(dir)) {
    const reason = await install(dir);
    if (reason !== undefined) return { skip: `needs PyPI: ${reason}` };
  }
  return { python: join(dir, "bin/python"), mcpServer: join(dir, "bin/forkd-mcp") };
}

/** The reason for which it could not be installed. Programs in an environment know its path. */
async function install(dir: string): Promise<string | undefined> {
  mkdirSync(join(repoRoot, ".cache"), { recursive: true });
  const made = await run(["python3", "-m", "venv", dir]);
  const filled = made ?? (await run([join(dir, "bin/pip"), "install", "--quiet", ...packages]));
  if (filled === undefined) return undefined;
  // What is half made must not be found by the next run.
  const broken = `${dir}.broken`;
  rmSync(broken, { recursive: true, force: true });
  if (existsSync(dir)) renameSync(dir, broken);
  return filled;
}

async function run(argv: readonly string[]): Promise<string | undefined> {
  let last = "";
  const keep = (line: string): void => {
    if (line.trim() !== "") last = line;
  };
  const end = await runChild(argv, {
    cwd: repoRoot,
    env: { ...process.env, PIP_DISABLE_PIP_VERSION_CHECK: "1", PIP_RETRIES: "1" },
    deadlineMs: installTimeoutMs,
    onStdoutLine: keep,
    onStderrLine: keep,
  });
  return end.code === 0 ? undefined : `${argv.slice(0, 3).join(" ")} failed: ${last}`;
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
