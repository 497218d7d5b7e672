import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { ForkdError, limits } from "@forkd/api";
import { z } from "zod";
import type { DataPaths, Env } from "../config/data-paths.ts";
import { auditLogDefault, resolveDataPaths } from "../config/data-paths.ts";
import {
  type EngineSettings,
  engineVariables,
  resolveEngineSettings,
} from "../config/engine-settings.ts";
import { layout } from "../store/layout.ts";
import type { Bind } from "./bind.ts";
import { formatBind, isLoopback, parseBind } from "./bind.ts";
import type { DaemonOption, DaemonOptionName } from "./options.ts";
import { daemonOptions } from "./options.ts";

/** All that the daemon is told from outside, read once, frozen. Paths are absolute. */
export interface DaemonConfig {
  readonly bind: Bind;
  readonly paths: DataPaths;
  readonly statePath: string;
  readonly auditLogPath: string;
  readonly tokenFile: string | null;
  readonly tls: { readonly certFile: string; readonly keyFile: string } | null;
  readonly prewarmScratchDir: string;
  readonly identityTimeoutMs: number;
  readonly branchConcurrency: number;
  readonly engines: EngineSettings;
}

export type DaemonCommand =
  | { readonly kind: "help" | "version" }
  | { readonly kind: "serve"; readonly config: DaemonConfig }
  | { readonly kind: "drain"; readonly config: DaemonConfig; readonly timeoutMs: number };

type RawOptions = Readonly<Partial<Record<DaemonOptionName, string>>>;

const rawSchema = z.object({
  bind: z.string().default("127.0.0.1:8889").transform(parseBind),
  "data-dir": z.string().min(1).optional(),
  "snapshot-root": z.string().min(1).optional(),
  state: z.string().min(1).optional(),
  "audit-log": z.string().min(1).optional(),
  "token-file": z.string().min(1).optional(),
  "tls-cert": z.string().min(1).optional(),
  "tls-key": z.string().min(1).optional(),
  "allow-plain-http": z.stringbool().default(false),
  "prewarm-scratch-dir": z.string().min(1).default("/dev/shm/forkd-prewarm"),
  "identity-timeout-secs": z.coerce
    .number()
    .positive()
    .max(limits.identityTimeoutMaxSecs)
    .default(limits.identityTimeoutDefaultSecs),
  engine: z.string().optional(),
  firecracker: z.string().min(1).optional(),
  "firecracker-unjailed": z.string().optional(),
  "cpu-template": z.string().min(1).optional(),
  "kvm-trial-secs": z.string().min(1).optional(),
  "branch-concurrency": z.coerce
    .number()
    .int()
    .min(1)
    .max(limits.concurrentBranchesMax)
    .default(limits.concurrentBranchesDefault),
} satisfies Record<DaemonOptionName, z.ZodType>);

type ParsedOptions = z.output<typeof rawSchema>;

/** What the command line asks for. Throws config_invalid, which is a usage error. */
export function parseCommand(argv: readonly string[], env: Env, uid: number): DaemonCommand {
  const { values, positionals } = parseFlags(argv);
  if (values["help"] === true) return { kind: "help" };
  if (values["version"] === true) return { kind: "version" };
  const [verb, ...rest] = positionals;
  if ((verb !== "serve" && verb !== "drain") || rest.length > 0) {
    const given = positionals.join(" ") || "nothing";
    throw new ForkdError("config_invalid", `the commands are serve and drain; given: ${given}`);
  }
  const config = resolveConfig(parseOptions(mergeOptions(values, env)), env, uid);
  const timeoutMs = parseDrainTimeout(values["timeout"], verb);
  return verb === "serve" ? { kind: verb, config } : { kind: verb, config, timeoutMs };
}

/** Seconds until a drain gives up, longer than requests in flight may take. */
const drainTimeoutDefaultSecs = 60;
const drainTimeoutMaxSecs = 3600;

function parseDrainTimeout(given: unknown, verb: "serve" | "drain"): number {
  const seconds = Number(given ?? drainTimeoutDefaultSecs);
  if (given !== undefined && verb !== "drain") {
    throw new ForkdError("config_invalid", "--timeout is an option of drain");
  }
  if (seconds > 0 && seconds <= drainTimeoutMaxSecs) return seconds * 1000;
  const range = `more than 0 and at most ${drainTimeoutMaxSecs}`;
  throw new ForkdError("config_invalid", `--timeout: seconds, ${range}`);
}

type Flags = Readonly<Record<string, unknown>>;

function parseFlags(argv: readonly string[]): { values: Flags; positionals: readonly string[] } {
  const table = Object.entries<DaemonOption>(daemonOptions).map(([name, { value }]) => [
    name,
    { type: value === null ? "boolean" : "string" } as const,
  ]);
  const flag = { type: "boolean" } as const;
  try {
    return parseArgs({
      args: [...argv],
      options: {
        ...Object.fromEntries(table),
        timeout: { type: "string" },
        help: flag,
        version: flag,
      },
      allowPositionals: true,
    });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ForkdError("config_invalid", reason, { cause: error });
  }
}

/** A flag wins over its variable; an empty variable counts as unset. */
function mergeOptions(flags: Flags, env: Env): RawOptions {
  const raw: Record<string, string> = {};
  for (const [name, { env: variable }] of Object.entries<DaemonOption>(daemonOptions)) {
    const value = flags[name] ?? (env[variable] || undefined);
    if (value !== undefined) raw[name] = String(value);
  }
  return raw;
}

function parseOptions(raw: RawOptions): ParsedOptions {
  const parsed = rawSchema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const name = String(issue?.path[0]);
  throw new ForkdError("config_invalid", `--${name}: ${issue?.message}`, { cause: parsed.error });
}

function resolveConfig(options: ParsedOptions, env: Env, uid: number): DaemonConfig {
  const moved = options["data-dir"];
  const paths = resolveDataPaths(
    moved === undefined ? env : { ...env, FORKD_DATA_DIR: moved },
    uid,
  );
  const config: DaemonConfig = {
    bind: Object.freeze(options.bind),
    paths: Object.freeze({
      ...paths,
      snapshotsDir: resolve(options["snapshot-root"] ?? paths.snapshotsDir),
    }),
    statePath: resolve(options.state ?? layout.stateFile(paths)),
    auditLogPath: resolve(options["audit-log"] ?? auditLogDefault(paths.dataDir)),
    tokenFile: optionalPath(options["token-file"]),
    tls: tlsFiles(options),
    prewarmScratchDir: resolve(options["prewarm-scratch-dir"]),
    identityTimeoutMs: options["identity-timeout-secs"] * 1000,
    branchConcurrency: options["branch-concurrency"],
    engines: Object.freeze(engineSettings(options)),
  };
  refuseExposure(config, options["allow-plain-http"]);
  return Object.freeze(config);
}

/** Flags have won over variables already. */
function engineSettings(options: ParsedOptions): EngineSettings {
  return resolveEngineSettings({
    [engineVariables.choice]: options.engine,
    [engineVariables.firecracker]: optionalPath(options.firecracker) ?? undefined,
    [engineVariables.unjailed]: options["firecracker-unjailed"],
    [engineVariables.cpuTemplate]: options["cpu-template"],
    [engineVariables.kvmTrial]: options["kvm-trial-secs"],
  });
}

function optionalPath(path: string | undefined): string | null {
  return path === undefined ? null : resolve(path);
}

function tlsFiles(options: ParsedOptions): DaemonConfig["tls"] {
  const { "tls-cert": cert, "tls-key": key } = options;
  if (cert === undefined && key === undefined) return null;
  if (cert !== undefined && key !== undefined) {
    return Object.freeze({ certFile: resolve(cert), keyFile: resolve(key) });
  }
  throw new ForkdError("config_invalid", "--tls-cert and --tls-key must come together");
}

/** Whoever can reach the daemon can start machines: beyond loopback it needs a token and TLS. */
function refuseExposure({ bind, tokenFile, tls }: DaemonConfig, allowPlainHttp: boolean): void {
  if (isLoopback(bind.host)) return;
  const where = `${formatBind(bind)} is reachable from other machines`;
  if (tokenFile === null) {
    throw new ForkdError("config_invalid", `${where}, and there is no token`, {
      hint: "add --token-file FILE, or bind to 127.0.0.1",
    });
  }
  if (tls !== null || allowPlainHttp) return;
  throw new ForkdError("config_invalid", `${where}, and the token would travel in the clear`, {
    hint: "add --tls-cert and --tls-key, or --allow-plain-http behind a proxy that has TLS",
  });
}
