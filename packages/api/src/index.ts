export * from "./errors.ts";
export * from "./ids.ts";
export * from "./limits.ts";
export * from "./routes.ts";
export * from "./sandbox.ts";
export * from "./snapshot.ts";
export * from "./system.ts";
