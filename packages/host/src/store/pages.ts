import { Worker } from "node:worker_threads";
import { ForkdError, type Problem } from "@forkd/api";
import { withDeadline } from "../lib/deadline.ts";
import { Semaphore } from "../lib/semaphore.ts";
import type { PageJobName, PageJobs } from "./page-jobs.ts";

/** A long flatten must not keep the first spawn of another chain waiting. */
const workersMax = 2;
/** More callers than this are answered busy: each holds its request open. */
const waitingMax = 1024;
/** The largest RAM from a slow disk; what takes longer hangs. */
const jobTimeoutMs = 10 * 60_000;

type Answer<N extends PageJobName> =
  | { readonly output: PageJobs[N]["output"] }
  | { readonly problem: Problem };

/**
 * Worker threads for the heavy work on guest memory, started when first needed and kept until this
 * is disposed of. They do not keep the process alive while they are idle.
 */
export class PageWorkers implements AsyncDisposable {
  readonly #places = new Semaphore({
    places: workersMax,
    waitingMax,
    what: "pieces of work on guest memory",
  });
  readonly #idle: Worker[] = [];

  /** Ends the threads that are idle: all of them, once nothing is asked of this any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#idle.splice(0).map((worker) => worker.terminate()));
  }

  /** Throws what the job throws, busy, deadline_exceeded. */
  run<N extends PageJobName>(name: N, input: PageJobs[N]["input"]): Promise<PageJobs[N]["output"]> {
    return this.#places.run(async () => {
      const worker = this.#idle.pop() ?? startWorker();
      worker.ref();
      let isSound = false;
      try {
        const answered = ask<Answer<N>>(worker, { name, input });
        const answer = await withDeadline(answered, jobTimeoutMs, `the ${name} of guest memory`);
        isSound = true;
        if ("output" in answer) return answer.output;
        const { code, error, hint } = answer.problem;
        throw new ForkdError(code, error, { hint });
      } finally {
        worker.unref();
        if (isSound) this.#idle.push(worker);
        else void worker.terminate();
      }
    });
  }
}

function startWorker(): Worker {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return new Worker(new URL(`./page-worker.${extension}`, import.meta.url));
}

function ask<Reply>(worker: Worker, request: unknown): Promise<Reply> {
  const { promise, resolve, reject } = Promise.withResolvers<Reply>();
  const onExit = (): void => reject(new ForkdError("internal", "a page worker ended"));
  worker.once("message", resolve).once("error", reject).once("exit", onExit);
  worker.postMessage(request);
  return promise.finally(() => {
    worker.off("message", resolve).off("error", reject).off("exit", onExit);
  });
}
