/** The official SDK's client, which is not ours, connected to the real `bin/forkd-mcp`. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import {
  StdioClientTransport,
  type StdioServerParameters,
} from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { type CallToolResult, CallToolResultSchema } from "@modelcontextprotocol/sdk/types.js";
import { repoRoot } from "./baked.ts";

const program = join(repoRoot, "bin/forkd-mcp");
const readyTimeoutMs = 20_000;

/** The daemon that a server is for. */
export interface McpDaemon {
  readonly url: string;
  readonly token: string;
}

export interface McpSession extends AsyncDisposable {
  readonly client: Client;
  call(name: string, args?: Record<string, unknown>): Promise<CallToolResult>;
}

const environmentOf = ({ url, token }: McpDaemon): Record<string, string> => ({
  PATH: process.env["PATH"] ?? "",
  HOME: process.env["HOME"] ?? "/",
  FORKD_URL: url,
  FORKD_TOKEN: token,
});

async function sessionOver(transport: Transport): Promise<McpSession> {
  const client = new Client({ name: "forkd-tests", version: "1" });
  await client.connect(transport);
  return {
    client,
    call: async (name, args = {}) =>
      CallToolResultSchema.parse(await client.callTool({ name, arguments: args })),
    [Symbol.asyncDispose]: () => client.close(),
  };
}

/** Starts a server that speaks over its standard input and output, ours unless another is named. */
export function stdioSession(
  daemon: McpDaemon,
  server: Pick<StdioServerParameters, "command" | "args"> = { command: program },
): Promise<McpSession> {
  const env = environmentOf(daemon);
  return sessionOver(new StdioClientTransport({ ...server, env, stderr: "inherit" }));
}

/** A server on HTTP at `url`. */
export interface McpHttpServer extends AsyncDisposable {
  readonly url: string;
  readonly process: ChildProcess;
}

export async function startHttpServer(
  daemon: McpDaemon,
  args: readonly string[] = ["--http", "127.0.0.1:0"],
): Promise<McpHttpServer> {
  const child = spawn(program, args, {
    env: environmentOf(daemon),
    stdio: ["ignore", "ignore", "pipe"],
  });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stderr });
  const [line] = await once(lines, "line", { signal: AbortSignal.timeout(readyTimeoutMs) });
  const url = /listening on (\S+)/.exec(String(line))?.[1];
  assert.ok(url, String(line));
  return {
    url,
    process: child,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGTERM");
      await exited;
    },
  };
}

export function httpSession(url: string, token?: string): Promise<McpSession> {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
  // The SDK's class lets its callbacks be undefined, which its own interface does not say.
  return sessionOver(transport as Transport);
}

/** The structured part of a result that is no failure. */
export function structured(result: CallToolResult): Record<string, unknown> {
  assert.notEqual(result.isError, true, JSON.stringify(result.content));
  return result.structuredContent ?? assert.fail("no structured content");
}

/** The first text of a result. */
export function textOf({ content }: CallToolResult): string {
  const [first] = content;
  assert.equal(first?.type, "text");
  return first?.type === "text" ? first.text : "";
}
