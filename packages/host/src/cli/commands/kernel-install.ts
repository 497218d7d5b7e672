import { exitCodes } from "../exit.ts";
import { defineVerb } from "../verb.ts";

export const kernelInstallVerb = defineVerb({
  describe: (command) =>
    command
      .name("install")
      .description("fetch the distribution's kernel for virtual machines through apt")
      .addHelpText("after", "\nThe host's own kernel packages are not changed."),
  parse: () => ({}),
  run: async ({ settings, output, signal }) => {
    const { installKernel } = await import("../../kernel/install.ts");
    const progress = (message: string): void => output.progress(message);
    const kernel = await installKernel({ paths: settings.paths, progress, signal });
    if (output.json) output.data(kernel);
    else output.line(kernel.id);
    return exitCodes.ok;
  },
});
