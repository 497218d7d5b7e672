import { join } from "node:path";
import { pythonEnv } from "./python-env.ts";
import { startServer } from "./server-program.ts";

/** An S3 server that is not ours: moto answers as AWS does, errors and parts included. */
const packages = ["moto[s3,server]==5.2.5"];
const startTimeoutMs = 60_000;

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
  const server = await startServer({
    argv: [program, "-H", "127.0.0.1", "-p", "0"],
    listening: /Running on http:\/\/127\.0\.0\.1:(\d+)/,
    startTimeoutMs,
  });
  return {
    port: Number(server.address),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
