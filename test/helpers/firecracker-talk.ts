import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { request } from "node:http";
import { join } from "node:path";
import { connectTo, watchFor } from "@forkd/host/engine/firecracker/sockets.ts";
import { withDeadline } from "@forkd/host/lib/deadline.ts";
import { eventually } from "./eventually.ts";

const answerTimeoutMs = 20_000;

export type TalkStep = readonly [method: string, path: string, body: unknown];

/** One VMM's process, spoken to without any of the engine. */
export class FirecrackerTalk implements AsyncDisposable {
  readonly #socketPath: string;
  readonly #child: ReturnType<typeof spawn>;

  private constructor(child: ReturnType<typeof spawn>, socketPath: string) {
    this.#child = child;
    this.#socketPath = socketPath;
  }

  /** `name` is that of its socket in `cwd`, which no other one may have had. */
  static async start(binary: string, cwd: string, name: string): Promise<FirecrackerTalk> {
    using listening = watchFor(cwd, name);
    const argv = ["--api-sock", name, "--level", "Error"];
    const child = spawn(binary, argv, { cwd, stdio: "ignore" });
    const socketPath = join(cwd, name);
    try {
      await withDeadline(listening.happened, answerTimeoutMs, "a start");
      // The name is there before the socket listens, which nothing tells of.
      await eventually(async () => (await connectTo(socketPath, binary)).destroy());
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
    return new FirecrackerTalk(child, socketPath);
  }

  /** `204` or the words of a refusal, without what differs between builds. */
  async say([method, path, body]: TalkStep): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const text = body === null ? undefined : JSON.stringify(body);
    const sent = request({ socketPath: this.#socketPath, method, path }, (response) => {
      response.setEncoding("utf8");
      let answer = "";
      response.on("data", (chunk: string) => {
        answer += chunk;
      });
      response.on("end", () => resolve(wordsOf(response.statusCode ?? 0, answer)));
    });
    sent.on("error", reject);
    sent.setHeader("connection", "close");
    if (text !== undefined) sent.setHeader("content-length", Buffer.byteLength(text));
    sent.end(text);
    return await withDeadline(promise, answerTimeoutMs, `${method} ${path}`);
  }

  /** Waits until it has ended by itself. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    await withDeadline(once(this.#child, "exit"), answerTimeoutMs, "its end");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.end();
  }
}

function wordsOf(status: number, answer: string): string {
  if (status === 204) return "204";
  assert.equal(status, 400, answer);
  const words: unknown = JSON.parse(answer).fault_message;
  assert.ok(typeof words === "string", answer);
  return (
    words
      // Where in the text, and what else it might have been.
      .replace(/ at line \d+ column \d+\.?$/, ".")
      .replace(/, expected .*$/, ".")
      .replace(/\.+$/, "")
      // The C library's words for an error; its number says the same.
      .replace(/[^:.]*\(os error (\d+)\)/, " (os error $1)")
  );
}
