import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { defineVerb } from "../verb.ts";

interface NamedSource {
  readonly from: string;
  readonly sha256: string;
}

export const firecrackerInstallVerb = defineVerb({
  describe: (command) =>
    command
      .name("install")
      .description("take Firecracker and its jailer from a release that you name and have checked")
      .requiredOption("--from <file|url>", "a release's archive, or the program itself")
      .requiredOption("--sha256 <hash>", "what it hashes to")
      .option("--jailer-from <file|url>", "the jailer, when --from is the program itself")
      .option("--jailer-sha256 <hash>", "what the jailer hashes to")
      .addHelpText("after", "\nNothing is taken from the network that you did not name."),
  parse: ({ flags }) => {
    const from = flags.text("jailerFrom");
    const sha256 = flags.text("jailerSha256");
    if ((from === undefined) !== (sha256 === undefined)) {
      throw usage("--jailer-from and --jailer-sha256 must come together", "give both or none");
    }
    const jailer = from === undefined ? null : source("--jailer-sha256", from, sha256);
    return { source: source("--sha256", flags.text("from"), flags.text("sha256")), jailer };
  },
  run: async ({ settings, output, signal }, options) => {
    const { installFirecracker } = await import("../../fork/install-firecracker.ts");
    const progress = (message: string): void => output.progress(message);
    const { paths } = settings;
    const installed = await installFirecracker({ paths, ...options, progress, signal });
    if (output.json) output.data(installed);
    else output.line(installed.id);
    if (installed.jailer === null) {
      output.warn("there is no jailer: Firecracker is not used until one is installed with it");
    }
    return exitCodes.ok;
  },
});

function source(flag: string, from: string | undefined, sha256: string | undefined): NamedSource {
  const hash = (sha256 ?? "").toLowerCase();
  if (/^[0-9a-f]{64}$/.test(hash)) return { from: from ?? "", sha256: hash };
  throw usage(`${flag} must be 64 hex digits`, "run: sha256sum FILE");
}
