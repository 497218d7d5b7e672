import { withDeadline } from "@forkd/host/lib/deadline.ts";
import { run } from "@forkd/host/lib/exec.ts";

/** No test needs a server for longer. */
const lifeMaxMs = 10 * 60_000;

export interface ServerProgram {
  readonly argv: readonly string[];
  /** Its first group is where it listens, in the line that says so. */
  readonly listening: RegExp;
  readonly startTimeoutMs: number;
}

export interface RunningServer extends AsyncDisposable {
  readonly address: string;
}

/** Starts a server that says where it listens. Throws what it ended with, or deadline_exceeded. */
export async function startServer(program: ServerProgram): Promise<RunningServer> {
  const { argv, listening, startTimeoutMs } = program;
  const stop = new AbortController();
  const said = Promise.withResolvers<string>();
  const ended = run(argv, {
    signal: stop.signal,
    timeoutMs: lifeMaxMs,
    onLine: (line) => {
      const address = listening.exec(line)?.[1];
      if (address !== undefined) said.resolve(address);
    },
  });
  const finished = ended.then(
    () => undefined,
    (error: unknown) => said.reject(error),
  );
  const dispose = async (): Promise<void> => {
    stop.abort();
    await finished;
  };
  try {
    const address = await withDeadline(said.promise, startTimeoutMs, `the start of ${argv[0]}`);
    return { address, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}
