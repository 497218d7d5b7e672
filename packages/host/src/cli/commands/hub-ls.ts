import type { Hub } from "../../remote/hub.ts";
import type { HubVersion } from "../../remote/hub-index.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { formatBytes } from "../format.ts";
import { hubUrl, withHubOption } from "../hub-url.ts";
import type { Column } from "../table.ts";
import { defineVerb } from "../verb.ts";

interface Row extends HubVersion {
  readonly name: string;
  readonly version: string;
  readonly description: string;
}

const none = "-";
const descriptionCharsMax = 60;

const columns: readonly Column<Row>[] = [
  { title: "NAME", cell: ({ name }) => name },
  { title: "VERSION", cell: ({ version }) => version },
  {
    title: "SIZE",
    align: "right",
    cell: ({ size_bytes: size }) => (size == null ? none : formatBytes(size)),
  },
  {
    title: "MEMORY",
    align: "right",
    cell: ({ memory_mib: mib }) => (mib == null ? none : `${mib} MiB`),
  },
  { title: "IMAGE", cell: (row) => row.base_image ?? none },
  { title: "DESCRIPTION", cell: (row) => row.description.slice(0, descriptionCharsMax) },
];

function rowsOf({ index }: Hub): Row[] {
  return Object.entries(index.packages).flatMap(([name, { description, versions }]) =>
    Object.entries(versions).map(([version, facts]) => ({
      ...facts,
      name,
      version,
      description: description ?? "",
    })),
  );
}

async function open({ settings, output, signal }: Context, url: URL): Promise<Hub> {
  const { openHub } = await import("../../remote/hub.ts");
  const { transferRetry } = await import("../../fork/transfer.ts");
  const { layout } = await import("../../store/layout.ts");
  const retry = transferRetry((text) => output.progress(text));
  const { env, paths } = settings;
  return await openHub(url, { cacheDir: layout.hubsDir(paths), retry, signal, env });
}

export const hubLsVerb = defineVerb({
  describe: (command) =>
    withHubOption(command.name("ls").description("list what a hub has to pull")),
  parse: ({ flags, args, rest }) => {
    if (args.length + rest.length > 0) throw usage("name the hub with --hub");
    return hubUrl(flags);
  },
  run: async (context, url) => {
    const { output } = context;
    const hub = await open(context, url);
    if (output.json) output.data(hub.index.packages);
    else {
      output.table(columns, rowsOf(hub));
      output.hint("pull one with: forkd pull NAME[@VERSION]");
    }
    return exitCodes.ok;
  },
});
