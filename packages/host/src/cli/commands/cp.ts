import { parseSandboxId, type SandboxId } from "@forkd/api";
import type { Copied, Copy } from "../copy.ts";
import { openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { formatBytes } from "../format.ts";
import { defineVerb } from "../verb.ts";

interface CpOptions {
  readonly id: SandboxId;
  readonly way: "upload" | "download";
  /** On this host; `-` is standard input, or output. */
  readonly local: string;
  readonly guest: string;
  readonly recursive: boolean;
  readonly user: string | undefined;
}

/** `ID:PATH`; a path of this host that looks like one is written with `./` before it. */
const guestOperand = /^([A-Za-z0-9_][A-Za-z0-9_-]{0,63}):(.+)$/s;

function parseOperands(
  from: string,
  to: string,
): Pick<CpOptions, "id" | "way" | "local" | "guest"> {
  const [, fromId, fromPath = ""] = guestOperand.exec(from) ?? [];
  const [, toId, toPath = ""] = guestOperand.exec(to) ?? [];
  if (fromId !== undefined && toId === undefined) {
    return { id: parseSandboxId(fromId), way: "download", local: to, guest: fromPath };
  }
  if (toId !== undefined && fromId === undefined) {
    return { id: parseSandboxId(toId), way: "upload", local: from, guest: toPath };
  }
  throw usage(
    "one of the two must be ID:PATH, and only one",
    "for example: forkd cp data.csv ID:/tmp/data.csv",
  );
}

async function copyNow(copy: Copy, { way, local, guest }: CpOptions): Promise<Copied> {
  const { download, downloadStream, upload, uploadStream } = await import("../copy.ts");
  if (way === "upload") {
    return local === "-"
      ? await uploadStream(copy, process.stdin, guest)
      : await upload(copy, local, guest);
  }
  return local === "-"
    ? await downloadStream(copy, guest, process.stdout)
    : await download(copy, guest, local);
}

export const cpVerb = defineVerb<CpOptions>({
  describe: (command) =>
    command
      .name("cp")
      .usage("[options] SRC DST")
      .description("copy files to or from a sandbox; one side is ID:PATH")
      .argument("<src>", "a path of this host, ID:PATH in a sandbox, or - for standard input")
      .argument("<dst>", "likewise, or - for standard output; into it when it is a directory")
      .option("-r, --recursive", "directories with all that is in them")
      .option("-u, --user <user>", "with the rights of this user of the guest"),
  parse: ({ args: [from = "", to = ""], flags }) => ({
    ...parseOperands(from, to),
    recursive: flags.on("recursive"),
    user: flags.text("user"),
  }),
  run: async ({ settings, output, signal }, options) => {
    const { SandboxFiles } = await import("@forkd/sdk");
    const files = new SandboxFiles(await openClient(settings), options.id);
    const { recursive, user } = options;
    const warn = (text: string): void => output.warn(text);
    const copied = await copyNow({ files, recursive, user, signal, warn }, options);
    if (output.json && options.local !== "-") output.data(copied);
    else output.success(`${copied.files} files, ${formatBytes(copied.bytes)}`);
    return exitCodes.ok;
  },
});
