import { openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { cliVersion } from "../parse.ts";
import { defineVerb } from "../verb.ts";

const daemonTimeoutMs = 1000;

export const versionVerb = defineVerb({
  describe: (command) =>
    command.name("version").description("print this version, and the daemon's if one answers"),
  parse: () => ({}),
  run: async ({ settings, output, signal }) => {
    const client = await openClient(settings);
    const daemon = await client
      .version({ timeoutMs: daemonTimeoutMs, signal })
      .catch(() => undefined);
    const version = cliVersion();
    if (output.json) output.data({ version, daemon: daemon?.version ?? null });
    else {
      output.line(`forkd ${version}`);
      if (daemon !== undefined) output.line(`forkd-controller ${daemon.version}`);
    }
    return exitCodes.ok;
  },
});
