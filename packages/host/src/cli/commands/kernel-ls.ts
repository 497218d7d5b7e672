import type { StoredKernel } from "../../store/kernels.ts";
import { exitCodes } from "../exit.ts";
import { formatAge } from "../format.ts";
import type { Column } from "../table.ts";
import { defineVerb } from "../verb.ts";

function columns(nowUnix: number, defaultId: string | undefined): Column<StoredKernel>[] {
  return [
    { title: "ID", cell: ({ record }) => record.id },
    { title: "RELEASE", cell: ({ record }) => record.release },
    { title: "INSTALLED", cell: ({ record }) => formatAge(record.installed_at_unix, nowUnix) },
    { title: "DEFAULT", cell: ({ record }) => (record.id === defaultId ? "yes" : "-") },
  ];
}

export const kernelLsVerb = defineVerb({
  describe: (command) => command.name("ls").description("list the installed guest kernels"),
  parse: () => ({}),
  run: async ({ settings, output }) => {
    const { findDefaultKernel, listKernels } = await import("../../store/kernels.ts");
    const kernels = await listKernels(settings.paths);
    const defaultId = (await findDefaultKernel(settings.paths))?.record.id;
    if (output.json) {
      output.data(
        kernels.map(({ dir, record }) => ({ ...record, dir, default: record.id === defaultId })),
      );
    } else if (kernels.length === 0) {
      output.progress("no guest kernel; install one with: forkd kernel install");
    } else output.table(columns(Date.now() / 1000, defaultId), kernels);
    return exitCodes.ok;
  },
});
