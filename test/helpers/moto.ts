import { join } from "node:path";
import { withDeadline } from "@forkd/host/lib/deadline.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { pythonEnv } from "./python-env.ts";

/** An S3 server that is not ours: moto answers as AWS does, errors and parts included. */
const packages = ["moto[s3,server]==5.2.5"];
const startTimeoutMs = 60_000;
const lifeMaxMs = 10 * 60_000;

export interface TestS3 extends AsyncDisposable {
  readonly port: number;
}

/** The program, installed once a checkout; else why there is none. */
export async function motoServer(): Promise<
  { readonly program: string } | { readonly skip: string }
> {
  const env = await pythonEnv(packages);
  return "skip" in env ? env : { program: join(env.dir, "bin/moto_server") };
}

/** Starts it on a free port of loopback; its objects are in its memory. */
export async function startMoto(program: string): Promise<TestS3> {
  const stop = new AbortController();
  const listening = Promise.withResolvers<number>();
  const ended = run([program, "-H", "127.0.0.1", "-p", "0"], {
    signal: stop.signal,
    timeoutMs: lifeMaxMs,
    onLine: (line) => {
      const port = /Running on http:\/\/127\.0\.0\.1:(\d+)/.exec(line)?.[1];
      if (port !== undefined) listening.resolve(Number(port));
    },
  });
  const finished = ended.then(
    () => undefined,
    (error: unknown) => listening.reject(error),
  );
  const dispose = async (): Promise<void> => {
    stop.abort();
    await finished;
  };
  try {
    const port = await withDeadline(listening.promise, startTimeoutMs, "the start of moto");
    return { port, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}
