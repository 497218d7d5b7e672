import { exitCodes } from "../exit.ts";
import { defineVerb } from "../verb.ts";

export const whereVerb = defineVerb({
  describe: (command) =>
    command
      .name("where")
      .description("print the data directory; with --json every path that forkd uses"),
  parse: () => ({}),
  run: async ({ settings, output }) => {
    if (output.json) output.data(settings.paths);
    else output.line(settings.paths.dataDir);
    return exitCodes.ok;
  },
});
