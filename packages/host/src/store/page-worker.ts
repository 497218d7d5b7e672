import { parentPort } from "node:worker_threads";
import { toForkdError } from "@forkd/api";
import { type PageJobName, type PageJobs, pageJobs } from "./page-jobs.ts";

/** Runs in a worker thread: one message in, one message out, one after the other. */

type PageRequest = {
  [N in PageJobName]: { readonly name: N; readonly input: PageJobs[N]["input"] };
}[PageJobName];

function answer({ name, input }: PageRequest): unknown {
  // The table pairs each name with its input, which the union of functions forgets.
  const job = pageJobs[name] as (input: unknown) => unknown;
  try {
    return { output: job(input) };
  } catch (error) {
    return { problem: toForkdError(error).toProblem() };
  }
}

parentPort?.on("message", (request: PageRequest) => parentPort?.postMessage(answer(request)));
