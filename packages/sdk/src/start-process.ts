import {
  type ExecAttach,
  type ExecStart,
  limits,
  parseExecId,
  type TerminalSize,
} from "@forkd/api";
import type { Client } from "./client.ts";
import { controlOf } from "./controller.ts";
import type { CallControl } from "./deadline.ts";
import { GuestProcess } from "./process.ts";

/** What a new command may be given; times are in seconds, as in every body. */
export interface ProcessOptions extends CallControl {
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly cwd?: string | undefined;
  /** NAME, UID or UID:GID of the guest. */
  readonly user?: string | undefined;
  /** Whether input will come. A terminal takes input in any case. */
  readonly stdin?: boolean | undefined;
  /** Gives it a terminal of this size. Its one output is `stdout`. */
  readonly tty?: TerminalSize | undefined;
  /** After this it is killed. Default: a day. */
  readonly timeoutSecs?: number | undefined;
  /** What happens to it when the connection breaks, or this program ends. Default: kill. */
  readonly onClose?: "kill" | "keep" | undefined;
}

/** How to return to a command. */
export interface AttachOptions extends CallControl {
  /** The first byte of output to be sent; see {@link GuestProcess.offset}. Default: all that is kept. */
  readonly offset?: number | undefined;
  /** What happens to it when the connection breaks. Default: keep. */
  readonly onClose?: "kill" | "keep" | undefined;
}

/** See {@link Sandbox.spawn}. */
export async function startProcess(
  client: Client,
  id: string,
  options: ProcessOptions & { readonly args: readonly string[] },
): Promise<GuestProcess> {
  const { args, env, cwd, user, stdin, tty, timeoutSecs, onClose } = options;
  const first: ExecStart = {
    type: "start",
    args: [...args],
    env: { ...env },
    cwd: cwd ?? null,
    user: user ?? null,
    stdin: stdin ?? false,
    tty: tty ?? null,
    timeout_secs: timeoutSecs ?? limits.execTimeoutMaxSecs,
    on_close: onClose ?? "kill",
    flow: "client",
  };
  const socket = await client.openExecSocket({ ...controlOf(options), params: { id } });
  return await GuestProcess.begin(socket, first, options);
}

/** See {@link Sandbox.attach}. Throws invalid_id, exec_not_found. */
export async function attachProcess(
  client: Client,
  id: string,
  options: AttachOptions & { readonly execId: string },
): Promise<GuestProcess> {
  const { execId, offset, onClose } = options;
  const first: ExecAttach = {
    type: "attach",
    exec_id: parseExecId(execId),
    offset: offset ?? 0,
    on_close: onClose ?? "keep",
    flow: "client",
  };
  const socket = await client.openExecSocket({ ...controlOf(options), params: { id } });
  return await GuestProcess.begin(socket, first, options);
}
