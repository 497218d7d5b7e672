/**
 * The MCP server of forkd has no tools yet. The package holds its place, because its dependency
 * closure (the MCP SDK) must never become the daemon's.
 */
export const mcpToolNames: readonly string[] = [];
