#!/usr/bin/env node
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { ForkdError, toForkdError } from "@forkd/api";
import { Client } from "@forkd/sdk";
import type { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { type Config, readConfig, usage } from "./config.ts";
import { createHttpServer, mcpPath } from "./http.ts";
import { createGuard } from "./http-guard.ts";
import { mcpServerFactory } from "./server.ts";
import { mcpVersion } from "./version.ts";

/** For answers under way when the server is told to stop. */
const drainMaxMs = 5_000;

async function serveStdio(newServer: () => Server): Promise<void> {
  const server = newServer();
  // The client goes by closing our input; without this, calls under way would hold us.
  process.stdin.once("end", () => void server.close());
  await server.connect(new StdioServerTransport());
}

async function serveHttp(newServer: () => Server, { http, httpToken }: Config): Promise<void> {
  const bind = http ?? { host: "127.0.0.1", port: 0 };
  const server = createHttpServer(newServer, createGuard(bind, httpToken));
  server.listen(bind.port, bind.host);
  await once(server, "listening");
  // The cast says what a server on TCP has.
  const { port } = server.address() as AddressInfo;
  const host = bind.host.includes(":") ? `[${bind.host}]` : bind.host;
  process.stderr.write(`forkd-mcp: listening on http://${host}:${port}${mcpPath}\n`);
  const stop = (): void => {
    server.close();
    setTimeout(() => server.closeAllConnections(), drainMaxMs).unref();
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
}

async function main(): Promise<void> {
  const config = readConfig(process.argv.slice(2), process.env);
  if (config === "help") process.stdout.write(usage);
  else if (config === "version") process.stdout.write(`forkd-mcp ${mcpVersion}\n`);
  else {
    const newServer = mcpServerFactory(new Client(config.client));
    await (config.http === null ? serveStdio(newServer) : serveHttp(newServer, config));
  }
}

try {
  await main();
} catch (thrown) {
  const error = addressError(thrown) ?? toForkdError(thrown);
  process.stderr.write(`error: ${error.message}\nhint: ${error.hint}\n`);
  process.exitCode = error.code === "bad_request" ? 2 : 1;
}

function addressError(thrown: unknown): ForkdError | undefined {
  if (!(thrown instanceof Error) || !("code" in thrown)) return undefined;
  if (thrown.code !== "EADDRINUSE" && thrown.code !== "EADDRNOTAVAIL") return undefined;
  return new ForkdError("address_in_use", thrown.message, {
    hint: "choose another address with --http",
  });
}
