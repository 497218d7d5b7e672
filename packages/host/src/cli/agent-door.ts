import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import {
  type EvalRequest,
  type EvalResult,
  type ExecRequest,
  type ExecResult,
  evalRequestSchema,
  execRequestSchema,
  ForkdError,
  limits,
  type Pong,
  toForkdError,
} from "@forkd/api";
import { z } from "zod";
import type { Target } from "./parse.ts";

/**
 * A guest's TCP door (docs/guest-protocol.md) on an address of this host: upstream's Python
 * `Sandbox` runs `forkd fork` and then expects the guest's agent there. It has no password, like
 * the door in the guest, so only programs of this host are let in.
 */

/** What the door needs of its guest. */
export interface DoorGuest {
  ping(): Promise<Pong>;
  exec(request: ExecRequest): Promise<ExecResult>;
  eval(request: EvalRequest): Promise<EvalResult>;
}

/** The bounds of the door in the guest. */
const requestBytesMax = 1024 * 1024;
const requestMaxMs = 30_000;
const connectionsMax = 64;

const timeoutSchema = z.number().positive().max(limits.execTimeoutMaxSecs).nullish();
const requestSchema = z.discriminatedUnion("action", [
  z.object({ action: z.literal("ping") }),
  z.object({
    action: z.literal("exec"),
    args: execRequestSchema.shape.args.min(1),
    timeout: timeoutSchema,
  }),
  z.object({
    action: z.literal("eval"),
    code: evalRequestSchema.shape.code,
    timeout: timeoutSchema,
  }),
]);
type DoorRequest = z.infer<typeof requestSchema>;

/** Whether only this host reaches an address: one of its loopback interface. */
export function isOwnAddress(host: string): boolean {
  if (/^127\.\d+\.\d+\.\d+$/.test(host) || host === "::1" || host === "localhost") return true;
  const own = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return own.some(({ internal, address }) => internal && address === host);
}

/** Whether a peer is of this host: the kernel drops what comes from elsewhere in its name. */
function isThisHost(peer: string): boolean {
  const own = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return isOwnAddress(peer) || own.some(({ address }) => address === peer);
}

/**
 * Listens until it is disposed. Throws bad_request for an address that others could reach,
 * address_in_use, and what the guest's ping throws.
 */
export async function openAgentDoor(target: Target, guest: DoorGuest): Promise<AsyncDisposable> {
  const where = `${target.host}:${target.port}`;
  if (!isOwnAddress(target.host)) {
    throw new ForkdError("bad_request", `${where} is not an address of the loopback interface`, {
      hint: `name 127.0.0.1:PORT, or run: ip address add ${target.host}/32 dev lo`,
    });
  }
  const { agent_lang: language } = await guest.ping();
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    // Linux takes in packets for an address of one interface on every other too.
    if (!isThisHost(socket.remoteAddress ?? "")) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    void serve(socket, (request) => answer(guest, language, request));
  });
  server.maxConnections = connectionsMax;
  await listen(server, target, where);
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, "close");
    },
  };
}

async function listen(server: Server, { host, port }: Target, where: string): Promise<void> {
  try {
    server.listen(port, host);
    await once(server, "listening");
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ForkdError("address_in_use", `cannot listen on ${where}: ${reason}`, {
      hint: "end the other forkd fork, or choose another address with --agent-listen",
      cause: error,
    });
  }
}

type Answer = (request: DoorRequest) => Promise<object>;

/** One connection: one line in, one line out. */
async function serve(socket: Socket, answerTo: Answer): Promise<void> {
  try {
    const reply = await answerTo(parseRequest(await readLine(socket)));
    socket.end(`${JSON.stringify(reply)}\n`);
  } catch (error) {
    socket.end(`${JSON.stringify({ error: toForkdError(error).message, exit_code: 1 })}\n`);
  }
}

/** The first line, or all until the client's end. Throws bad_request, deadline_exceeded. */
function readLine(socket: Socket): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const fail = (code: "bad_request" | "deadline_exceeded", why: string): void =>
    reject(new ForkdError(code, why));
  const timer = setTimeout(
    () => fail("deadline_exceeded", `the request took over ${requestMaxMs} ms`),
    requestMaxMs,
  );
  const chunks: Buffer[] = [];
  let bytes = 0;
  socket.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (chunk.includes("\n")) resolve(Buffer.concat(chunks).toString("utf8"));
    else if (bytes > requestBytesMax) fail("bad_request", "the request is too long");
  });
  socket.once("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
  socket.once("close", () => fail("bad_request", "the client is gone"));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.removeAllListeners("data").resume();
  });
}

function parseRequest(text: string): DoorRequest {
  const [line = ""] = text.split("\n", 1);
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new ForkdError("bad_request", "the request is not valid JSON", { cause });
  }
  const parsed = requestSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new ForkdError("bad_request", z.prettifyError(parsed.error));
}

async function answer(guest: DoorGuest, language: string, request: DoorRequest): Promise<object> {
  switch (request.action) {
    case "ping":
      return await guest.ping();
    case "exec":
      return await exec(guest, request);
    case "eval":
      return await evaluate(guest, language, request);
  }
}

type Asked<Action> = Extract<DoorRequest, { action: Action }>;

async function exec(guest: DoorGuest, { args, timeout }: Asked<"exec">): Promise<object> {
  const timeoutSecs = timeout ?? limits.execTimeoutDefaultSecs;
  const result = await guest.exec({ args, timeout_secs: timeoutSecs, env: {} });
  const { stdout, stderr, exit_code, timed_out, truncated } = result;
  return { stdout, stderr, exit_code, timed_out, ...(truncated && { truncated }) };
}

/**
 * Without a time of its own an eval may take as long as any may. Clients decode `result_json` when
 * it is there: Python's evals are known to give the text of repr().
 */
async function evaluate(
  guest: DoorGuest,
  language: string,
  { code, timeout }: Asked<"eval">,
): Promise<object> {
  const timeoutSecs = timeout ?? limits.execTimeoutMaxSecs;
  const answer = await guest.eval({ code, timeout_secs: timeoutSecs });
  const { result, result_json, error, traceback, exit_code } = answer;
  if (error !== null) return { error, traceback, stack: traceback, exit_code };
  const json = language === "node" && result_json !== null ? { result_json } : {};
  return { result, ...json, exit_code };
}
