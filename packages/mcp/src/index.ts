export { allTools, mcpServerFactory } from "./server.ts";
