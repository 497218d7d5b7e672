import type { SandboxId } from "@forkd/api";
import type { Context, Settings } from "./context.ts";
import { listTimeoutMs, openClient } from "./daemon.ts";
import { parseDetachKeys } from "./detach-keys.ts";
import { exitCodes } from "./exit.ts";
import { type Flags, usage } from "./flags.ts";
import type { Guest } from "./guest.ts";
import { joinProcess } from "./guest-process.ts";
import { sizeOf } from "./terminal.ts";

/** How a command is joined to this terminal, instead of run to its end. */
export interface StreamMode {
  readonly input: boolean;
  readonly tty: boolean;
  readonly detach: boolean;
  readonly detachKeys: Uint8Array;
}

/** Null without -i, -t and -d. Throws bad_request for what does not go together. */
export function parseStreamMode(flags: Flags, guest: Guest): StreamMode | null {
  const [input, tty, detach] = ["interactive", "tty", "detach"].map((name) => flags.on(name));
  if (!input && !tty && !detach) return null;
  if (guest.by === "tcp") {
    throw usage(
      "-i, -t and -d do not work with --target or --child",
      "name a sandbox with --id ID",
    );
  }
  if (flags.on("stdin")) throw usage("--stdin and -i, -t or -d are two ways", "leave --stdin out");
  if (flags.on("json") && !detach) {
    throw usage("--json prints one result, not a stream", "leave out -i and -t, or --json");
  }
  if (detach && input) throw usage("-d leaves the command at once, so that -i has no meaning");
  const detachKeys = parseDetachKeys(flags.text("detachKeys") ?? "");
  if (tty && !detach && !process.stdin.isTTY) {
    throw usage("standard input is no terminal", "leave out -t, or use -i for piped input");
  }
  return {
    input: input === true || tty === true,
    tty: tty === true,
    detach: detach === true,
    detachKeys,
  };
}

export interface StreamedCommand {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string | null;
  readonly user: string | null;
  readonly timeoutSecs: number;
  readonly stream: StreamMode;
}

/** Runs a command of a sandbox as it goes; answers our own exit code. */
export async function execStreamed(
  { settings, output, signal }: Context,
  id: SandboxId,
  { stream, args, cwd, user, ...command }: StreamedCommand,
): Promise<number> {
  const { Sandbox } = await import("@forkd/sdk");
  const client = await openClient(settings);
  const sandbox = await Sandbox.get(id, { client, timeoutMs: listTimeoutMs, signal });
  const guest = await sandbox.spawn(args, {
    ...command,
    env: { ...(stream.tty ? termOf(settings) : {}), ...command.env },
    ...(cwd === null ? {} : { cwd }),
    ...(user === null ? {} : { user }),
    ...(stream.tty ? { tty: sizeOf(process.stdout) } : {}),
    stdin: stream.input,
    onClose: stream.detach ? "keep" : "kill",
    signal,
  });
  const returnHint = `forkd attach ${id} ${guest.id}`;
  if (stream.detach) {
    await guest.detach();
    if (output.json) output.data({ exec_id: guest.id });
    else output.line(guest.id);
    output.hint(`return to it with: ${returnHint}`);
    return exitCodes.ok;
  }
  const { input, detachKeys } = stream;
  return await joinProcess(guest, { output, signal, input, detachKeys, returnHint });
}

/** What the user's terminal understands. */
function termOf({ env }: Settings): Readonly<Record<string, string>> {
  const term = env["TERM"];
  return term === undefined || term === "" ? {} : { TERM: term };
}
