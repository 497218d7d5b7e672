import { toForkdError } from "@forkd/api";
import { beginForkService } from "../fork/open-service.ts";
import { goFirst } from "../linux/priority.ts";
import { openServiceManager, serviceVariables } from "../linux/service-manager.ts";
import { type DaemonConfig, parseCommand } from "./config.ts";
import { drainHost, type OpenService } from "./drain.ts";
import { jsonLogger } from "./json-log.ts";
import { renderDaemonHelp } from "./options.ts";
import { serve } from "./serve.ts";
import { watchSignals } from "./signals.ts";
import { openTracing } from "./tracing/open-tracing.ts";
import { daemonVersion } from "./version.ts";

/** The shell around the daemon: read the command line, serve, turn the end into an exit code. */

const exitCodes = { stopped: 0, failed: 1, usage: 2 } as const;

const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

async function main(): Promise<number> {
  const command = parseCommand(process.argv.slice(2), process.env, process.getuid?.() ?? -1);
  if (command.kind === "help") process.stdout.write(renderDaemonHelp());
  if (command.kind === "version") print(`forkd-controller ${daemonVersion()}`);
  if (command.kind === "serve") await runServe(command.config);
  if (command.kind === "drain") {
    const log = jsonLogger((line) => process.stderr.write(line));
    await drainHost({ ...command, openService, log });
    print("no sandbox is left, and no daemon runs");
  }
  return exitCodes.stopped;
}

async function runServe(config: DaemonConfig): Promise<void> {
  const log = jsonLogger((line) => process.stdout.write(line));
  await using manager = openServiceManager(process.env, log);
  for (const name of serviceVariables) delete process.env[name];
  const version = daemonVersion();
  log.info("priority", await goFirst());
  await using tracing = await openTracing({ env: process.env, version, log });
  await serve({
    config,
    version,
    openService,
    log,
    announce: (url) => print(`listening on ${url}`),
    manager,
    signals: watchSignals(process),
    tracing,
  });
}

const openService: OpenService = (config, log) => {
  const { paths, statePath, branchConcurrency, identityTimeoutMs, engines } = config;
  const programPath = process.env["PATH"];
  return beginForkService({
    paths,
    owner: "daemon",
    log,
    stateFile: statePath,
    branchConcurrency,
    identityTimeoutMs,
    engines,
    ...(programPath !== undefined && { programPath }),
  });
};

/** A configuration that cannot work is a mistake of whoever started us; the rest is a failure. */
function fail(thrown: unknown): number {
  const error = toForkdError(thrown);
  process.stderr.write(`error: ${error.message}\nhint: ${error.hint}\n`);
  return error.code === "config_invalid" ? exitCodes.usage : exitCodes.failed;
}

process.exit(await main().catch(fail));
