import { ForkdError, jsonSchema, toForkdError } from "@forkd/api";
import type { Client } from "@forkd/sdk";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import {
  CallToolRequestSchema,
  type CallToolResult,
  CompleteRequestSchema,
  ErrorCode,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  ListToolsRequestSchema,
  McpError,
  ReadResourceRequestSchema,
  type Tool as ToolListing,
} from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import { fileTools } from "./file-tools.ts";
import { problemResult } from "./problems.ts";
import { completeName, listResources, readResource, resourceTemplates } from "./resources.ts";
import { routeTools } from "./route-tools.ts";
import type { JsonObject, Tool } from "./tool.ts";
import { mcpVersion } from "./version.ts";
import { waitForTextTool } from "./wait-for-text.ts";

const instructions =
  "forkd runs code in microVMs that are forked from warm snapshots. list_snapshots shows what " +
  "can be forked, spawn_sandboxes forks it, exec_command and eval_code run code in a sandbox, " +
  "read_file and write_file work on its files, " +
  "branch_sandbox freezes a sandbox's state so that it can be forked again, kill_sandbox ends " +
  "it. Sandboxes run until they are killed.";

/** Every tool of the server. */
export function allTools(client: Client): Tool[] {
  return [...routeTools(client), ...fileTools(client), waitForTextTool(client)];
}

/**
 * Makes MCP servers over one daemon's client: one a connection. The caller connects each to its
 * transport.
 */
export function mcpServerFactory(client: Client): () => Server {
  const tools = new Map(allTools(client).map((tool) => [tool.name, tool]));
  const listed = [...tools.values()].map(listing);
  return () => {
    const server = new Server(
      { name: "forkd", version: mcpVersion },
      { capabilities: { tools: {}, resources: {}, completions: {} }, instructions },
    );
    server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: listed }));
    server.setRequestHandler(CallToolRequestSchema, ({ params }, { signal }) => {
      const tool = tools.get(params.name);
      if (tool !== undefined) return callTool(tool, params.arguments ?? {}, signal);
      throw new McpError(ErrorCode.InvalidParams, `there is no tool ${params.name.slice(0, 80)}`);
    });
    installResources(server, client);
    return server;
  };
}

function listing({ name, description, input, output, annotations }: Tool): ToolListing {
  return {
    name,
    description,
    // The schemas of objects say type "object", which is all that the protocol's type asks for.
    inputSchema: jsonSchema(input, "input") as ToolListing["inputSchema"],
    outputSchema: jsonSchema(output, "output") as NonNullable<ToolListing["outputSchema"]>,
    annotations: { ...annotations },
  };
}

async function callTool(
  tool: Tool,
  args: JsonObject,
  signal: AbortSignal,
): Promise<CallToolResult> {
  try {
    const parsed = tool.input.safeParse(args);
    if (!parsed.success) throw argumentsError(tool, parsed.error);
    const result = await tool.run(parsed.data, signal);
    return {
      content: [{ type: "text", text: JSON.stringify(plain(result)) }],
      structuredContent: { ...result },
    };
  } catch (error) {
    return problemResult(toForkdError(error));
  }
}

/** A list has no need of the object that structured content must be. */
function plain(result: JsonObject): unknown {
  return Array.isArray(result["result"]) ? result["result"] : result;
}

function argumentsError(tool: Tool, error: z.ZodError): ForkdError {
  return new ForkdError("bad_request", `${tool.name}: ${z.prettifyError(error)}`);
}

function installResources(server: Server, client: Client): void {
  server.setRequestHandler(ListResourcesRequestSchema, async (_request, { signal }) => ({
    resources: await asMcpErrors(listResources(client, signal)),
  }));
  server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({
    resourceTemplates: [...resourceTemplates],
  }));
  server.setRequestHandler(ReadResourceRequestSchema, ({ params }, { signal }) =>
    asMcpErrors(readResource(client, params.uri, signal)),
  );
  server.setRequestHandler(CompleteRequestSchema, async ({ params: { ref, argument } }) => {
    if (ref.type !== "ref/resource") return { completion: { values: [] } };
    return { completion: await asMcpErrors(completeName(client, ref.uri, argument.value)) };
  });
}

/** The protocol's code for a resource that is not there. */
const resourceNotFound = -32_002;

/** Only tools have results for failures; the rest of the protocol has error objects. */
async function asMcpErrors<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    const { code, message, hint, status } = toForkdError(thrown);
    const number = status < 500 ? resourceNotFound : ErrorCode.InternalError;
    throw new McpError(number, `${code}: ${message}`, { code, hint });
  }
}
