import { toForkdError } from "@forkd/api";
import { openForkService } from "../fork/open-service.ts";
import { openServiceManager, serviceVariables } from "../linux/service-manager.ts";
import { parseCommand } from "./config.ts";
import { jsonLogger } from "./json-log.ts";
import { renderDaemonHelp } from "./options.ts";
import { serve } from "./serve.ts";
import { watchSignals } from "./signals.ts";
import { daemonVersion } from "./version.ts";

/** The shell around the daemon: read the command line, serve, turn the end into an exit code. */

const exitCodes = { stopped: 0, failed: 1, usage: 2 } as const;

const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

async function main(): Promise<number> {
  const env = process.env;
  const command = parseCommand(process.argv.slice(2), env, process.getuid?.() ?? -1);
  const version = daemonVersion();
  if (command.kind === "help") process.stdout.write(renderDaemonHelp());
  if (command.kind === "version") print(`forkd-controller ${version}`);
  if (command.kind !== "serve") return exitCodes.stopped;
  const log = jsonLogger((line) => process.stdout.write(line));
  await using manager = openServiceManager(env, log);
  for (const name of serviceVariables) delete process.env[name];
  await serve({
    config: command.config,
    version,
    openService: ({ paths, statePath, branchConcurrency, identityTimeoutMs, engines }, log) =>
      openForkService({
        paths,
        owner: "daemon",
        log,
        stateFile: statePath,
        branchConcurrency,
        identityTimeoutMs,
        engines,
        ...(env["PATH"] !== undefined && { programPath: env["PATH"] }),
      }),
    log,
    announce: (url) => print(`listening on ${url}`),
    manager,
    signals: watchSignals(process),
  });
  return exitCodes.stopped;
}

/** A configuration that cannot work is a mistake of whoever started us; the rest is a failure. */
function fail(thrown: unknown): number {
  const error = toForkdError(thrown);
  process.stderr.write(`error: ${error.message}\nhint: ${error.hint}\n`);
  return error.code === "config_invalid" ? exitCodes.usage : exitCodes.failed;
}

process.exit(await main().catch(fail));
