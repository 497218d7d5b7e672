import { type DataPaths, type Env, resolveDataPaths } from "../config/data-paths.ts";
import { engineVariables } from "../config/engine-settings.ts";
import type { Flags } from "./flags.ts";
import { usage } from "./flags.ts";
import type { Output } from "./output.ts";

export const daemonUrlDefault = "http://127.0.0.1:8889";

/** Where this run of the CLI works; from the options that every command has. */
export interface Settings {
  readonly paths: DataPaths;
  /** The environment with what `--data-dir` and `--engine` say in it. */
  readonly env: Env;
  readonly dataDirGiven: boolean;
  readonly daemonUrl: string;
  /** Named by the user: then the daemon is meant, and its absence is a failure. */
  readonly daemonUrlGiven: boolean;
  readonly daemonToken: string | undefined;
}

/** What a command may use of the world. */
export interface Context {
  readonly settings: Settings;
  readonly output: Output;
  /** Aborted by SIGINT, SIGTERM, SIGHUP. */
  readonly signal: AbortSignal;
}

/** Throws bad_request for an address that is not http or https. */
export function readSettings(flags: Flags, env: Env, uid: number): Settings {
  const dataDir = flags.text("dataDir");
  const daemonUrl = flags.text("daemonUrl");
  const engine = flags.text("engine");
  const told = {
    ...env,
    ...(dataDir !== undefined && { FORKD_DATA_DIR: dataDir }),
    ...(engine !== undefined && { [engineVariables.choice]: engine }),
  };
  return {
    paths: resolveDataPaths(told, uid),
    env: told,
    dataDirGiven: dataDir !== undefined,
    daemonUrl: parseDaemonUrl(daemonUrl ?? daemonUrlDefault),
    daemonUrlGiven: daemonUrl !== undefined,
    daemonToken: flags.text("daemonToken")?.trim(),
  };
}

function parseDaemonUrl(text: string): string {
  const url = URL.parse(text);
  if (url !== null && (url.protocol === "http:" || url.protocol === "https:")) {
    return text.replace(/\/+$/, "");
  }
  throw usage(
    `--daemon-url ${JSON.stringify(text.slice(0, 200))} is not an http or https address`,
    `for example: --daemon-url ${daemonUrlDefault}`,
  );
}
