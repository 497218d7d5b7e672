import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { ForkdError, limits, toForkdError } from "@forkd/api";
import type { Server as McpServer } from "@modelcontextprotocol/sdk/server/index.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import type { Guard } from "./http-guard.ts";

/** The one path that is served. */
export const mcpPath = "/mcp";
const connectionsMax = 256;
/** How long a client may take to send its headers, and its whole request. */
const headersMaxMs = 10_000;
const requestMaxMs = 30_000;

/**
 * MCP over streamable HTTP, without sessions: each POST has a server and a transport of its own,
 * which end with its answer. The caller listens and closes.
 */
export function createHttpServer(newMcpServer: () => McpServer, guard: Guard): Server {
  const server = createServer(
    { headersTimeout: headersMaxMs, requestTimeout: requestMaxMs },
    (request, response) => {
      handle(request, response).catch((error: unknown) => refuse(response, toForkdError(error)));
    },
  );
  server.maxConnections = connectionsMax;

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    guard(request);
    checkTarget(request, response);
    const mcp = newMcpServer();
    const transport = new StreamableHTTPServerTransport({
      maxRequestBodySize: limits.requestBodyBytesMax,
    });
    response.once("close", () => void mcp.close());
    // The SDK's class lets its callbacks be undefined, which its own interface does not say.
    await mcp.connect(transport as Transport);
    await transport.handleRequest(request, response);
  }

  return server;
}

/** Without sessions there is no stream to open with GET, and nothing to DELETE. */
function checkTarget({ method, url }: IncomingMessage, response: ServerResponse): void {
  if (url?.split("?", 1)[0] !== mcpPath) {
    throw new ForkdError("route_not_found", "there is nothing here", { hint: `POST ${mcpPath}` });
  }
  if (method === "POST") return;
  response.setHeader("allow", "POST");
  throw new ForkdError("method_not_allowed", `${method} is not a method of ${mcpPath}`);
}

/** A refusal before the protocol begins, in the daemon's own form. */
function refuse(response: ServerResponse, error: ForkdError): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  if (error.code === "unauthorized") response.setHeader("www-authenticate", "Bearer");
  // What is left of the body is not read.
  response.writeHead(error.status, { "content-type": "application/json", connection: "close" });
  response.end(JSON.stringify(error.toProblem()));
}
