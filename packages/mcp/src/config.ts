import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { ForkdError, limits } from "@forkd/api";
import type { ClientOptions } from "@forkd/sdk";
import { type Address, isLoopback, parseAddress } from "./address.ts";

/** What one run of the server is asked to do. */
export interface Config {
  /** Where to serve HTTP; null serves standard input and output. */
  readonly http: Address | null;
  /** What HTTP clients must know; null lets everybody on this machine in. */
  readonly httpToken: string | null;
  /** The daemon's address and token are the SDK's to find: FORKD_URL and FORKD_TOKEN. */
  readonly client: ClientOptions;
}

type Environment = Readonly<Record<string, string | undefined>>;

export const usage = `usage: forkd-mcp [--http HOST:PORT [--token-file FILE]]

Serves the Model Context Protocol for a forkd daemon: over standard input and output, or with
--http over streamable HTTP at http://HOST:PORT/mcp.

  --http HOST:PORT    serve HTTP there; port 0 lets the system choose
  --token-file FILE   HTTP clients must send the token in it (FORKD_MCP_TOKEN_FILE); without one
                      only a loopback address may be served
  --version, --help

environment:
  FORKD_URL           the daemon's address (http://127.0.0.1:8889)
  FORKD_TOKEN         the daemon's token
  FORKD_HTTP_TIMEOUT  seconds for a call to the daemon that names no time of its own (60; more for
                      calls that are known to be slow)
`;

/** "help" and "version" ask for nothing else. Throws bad_request, config_invalid. */
export function readConfig(
  args: readonly string[],
  environment: Environment,
): Config | "help" | "version" {
  const { values } = parse(args);
  if (values.help === true) return "help";
  if (values.version === true) return "version";
  const http = values.http === undefined ? null : parseAddress(values.http);
  const tokenFile = values["token-file"] ?? environment["FORKD_MCP_TOKEN_FILE"] ?? "";
  const httpToken = http === null || tokenFile === "" ? null : readToken(tokenFile);
  if (http !== null && httpToken === null && !isLoopback(http.host)) {
    throw new ForkdError("bad_request", `serving ${http.host} needs a token`, {
      hint: "add --token-file FILE, or serve a loopback address",
    });
  }
  return { http, httpToken, client: { timeoutMs: parseTimeout(environment) } };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        http: { type: "string" },
        "token-file": { type: "string" },
        version: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new ForkdError("bad_request", message, { hint: "see: forkd-mcp --help" });
  }
}

function readToken(path: string): string {
  const token = readFileSync(path, "utf8").trim();
  if (token.length >= limits.tokenBytesMin && token.length <= limits.tokenBytesMax) return token;
  throw new ForkdError(
    "config_invalid",
    `the token in ${path} must have ${limits.tokenBytesMin} to ${limits.tokenBytesMax} characters`,
    { hint: `write one with: head -c 32 /dev/urandom | base64 > ${path}` },
  );
}

/** The longest timer of the platform, in seconds. */
const timeoutMaxSecs = 2_147_483;

function parseTimeout(environment: Environment): number | undefined {
  const text = environment["FORKD_HTTP_TIMEOUT"] ?? "";
  if (text === "") return undefined;
  const secs = Number(text);
  if (secs > 0 && secs <= timeoutMaxSecs) return secs * 1000;
  throw new ForkdError("config_invalid", `FORKD_HTTP_TIMEOUT=${text} is no number of seconds`, {
    hint: "for example: FORKD_HTTP_TIMEOUT=60",
  });
}
