import { ForkdError, limits } from "@forkd/api";
import type { Context } from "../context.ts";
import { openClient } from "../daemon.ts";
import { detachKeysDefault } from "../detach-keys.ts";
import { reportExec } from "../exec-report.ts";
import { execStreamed, parseStreamMode, type StreamMode } from "../exec-streamed.ts";
import { type Flags, usage } from "../flags.ts";
import {
  addGuestOptions,
  type Guest,
  openTcpAgent,
  parseGuest,
  parseTimeoutSecs,
} from "../guest.ts";
import { parseEnvPairs } from "../parse.ts";
import { collect, defineVerb } from "../verb.ts";

interface ExecOptions {
  readonly guest: Guest;
  readonly args: readonly string[];
  readonly timeoutSecs: number;
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string | null;
  readonly user: string | null;
  readonly stdin: boolean;
  /** Null runs it to its end and prints what it printed. */
  readonly stream: StreamMode | null;
}

/** For the request's way through the daemon, above the command's own time. */
const graceMs = 10_000;

/** The TCP door knows a command and its time, nothing else. */
function refuseOverTcp(flags: Flags): void {
  const asked = ["env", "workdir", "user"].find((name) => flags.text(name) !== undefined);
  const list = flags.list("env").length > 0 ? "env" : undefined;
  const name = flags.on("stdin") ? "stdin" : (asked ?? list);
  if (name === undefined) return;
  throw usage(`--${name} does not work with --target or --child`, "name a sandbox with --id ID");
}

function timeoutSecsOf(flags: Flags, stream: StreamMode | null): number {
  if (flags.text("timeoutSecs") !== undefined) return parseTimeoutSecs(flags);
  return stream === null ? limits.execTimeoutDefaultSecs : limits.execTimeoutMaxSecs;
}

async function execByDaemon(
  context: Context,
  guest: Extract<Guest, { by: "daemon" }>,
  options: ExecOptions,
): Promise<number> {
  const { settings, output, signal } = context;
  const { readStdin } = await import("../stdin.ts");
  const stdin = options.stdin ? await readStdin(process.stdin) : null;
  const client = await openClient(settings);
  const result = await client.execSandbox({
    params: { id: guest.id },
    body: {
      args: [...options.args],
      timeout_secs: options.timeoutSecs,
      env: options.env,
      cwd: options.cwd,
      user: options.user,
      stdin,
    },
    timeoutMs: options.timeoutSecs * 1000 + graceMs,
    signal,
  });
  return reportExec(output, result, options.timeoutSecs);
}

export const execVerb = defineVerb<ExecOptions>({
  describe: (command) =>
    addGuestOptions(
      command
        .name("exec")
        .usage("[options] [ID] -- COMMAND...")
        .description("run a command in a guest; exits with the command's own code")
        .argument("[id]", "a sandbox of the daemon")
        .argument("[command...]", "after --: the command and its arguments"),
    )
      .option("-e, --env <key=value>", "set a variable of the command; may repeat", collect)
      .option("-w, --workdir <dir>", "run it in this directory of the guest")
      .option("-u, --user <user>", "run it as this user: NAME, UID or UID:GID")
      .option("--stdin", "give it this command's standard input, at most 1 MiB of UTF-8")
      .option("-i, --interactive", "stream standard input to it, and its outputs as they come")
      .option("-t, --tty", "give it a terminal, the size of this one")
      .option("-d, --detach", "print its id and leave it running; see forkd attach")
      .option("--detach-keys <keys>", "with -t: leave it when these are typed", detachKeysDefault)
      .option(
        "--timeout-secs <secs>",
        `kill it after this time (default: ${limits.execTimeoutDefaultSecs}; with -i, -t or -d none)`,
      ),
  parse: (input) => {
    const { flags, rest } = input;
    if (rest.length === 0) {
      throw usage("no command", "put it after --, for example: forkd exec ID -- uname -a");
    }
    if (rest.length > limits.execArgsMax) {
      throw new ForkdError("bad_request", `a command has at most ${limits.execArgsMax} words`);
    }
    const guest = parseGuest(input);
    if (guest.by === "tcp") refuseOverTcp(flags);
    const stream = parseStreamMode(flags, guest);
    return {
      guest,
      args: rest,
      stream,
      timeoutSecs: timeoutSecsOf(flags, stream),
      env: parseEnvPairs(flags.list("env")),
      cwd: flags.text("workdir") ?? null,
      user: flags.text("user") ?? null,
      stdin: flags.on("stdin"),
    };
  },
  run: async (context, options) => {
    const { guest, args, timeoutSecs, stream } = options;
    if (guest.by === "daemon" && stream !== null) {
      return await execStreamed(context, guest.id, { ...options, stream });
    }
    if (guest.by === "daemon") return execByDaemon(context, guest, options);
    const agent = await openTcpAgent(context, guest);
    const answer = await agent.exec(args, timeoutSecs);
    const error = answer.error ?? null;
    return reportExec(context.output, { ...answer, error }, timeoutSecs);
  },
});
