import { access } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import { reword, runTool } from "./tools.ts";

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
const bootstrapTimeoutMs = 20 * 60_000;

export interface BootstrapOptions {
  readonly suite: string;
  readonly packages: readonly string[];
  readonly treeDir: string;
  readonly tmpDir: string;
  readonly progress: (message: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Makes a minimal Debian root with these packages, from the archive that mmdebstrap takes by
 * default. Throws image_not_found (a package that does not exist), registry_unreachable,
 * tool_missing.
 */
export async function bootstrapDebian(options: BootstrapOptions): Promise<void> {
  await requireKeyring();
  const include = options.packages.length > 0 ? [`--include=${options.packages.join(",")}`] : [];
  const lean = [
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    // Nothing is worth flushing before the image is whole.
    "--dpkgopt=force-unsafe-io",
  ];
  const argv = ["mmdebstrap", "--variant=minbase", "--format=directory", ...lean, ...include];
  try {
    await runTool([...argv, options.suite, options.treeDir], {
      tmpDir: options.tmpDir,
      timeoutMs: bootstrapTimeoutMs,
      signal: options.signal,
      onLine: (line) => {
        const step = /^I: ((?:running|downloading|extracting|installing|cleaning) .+)$/.exec(
          line,
        )?.[1];
        if (step !== undefined) options.progress(step);
      },
    });
  } catch (error) {
    throw reword(error, rules(options));
  }
}

function rules({ suite, packages }: BootstrapOptions) {
  return [
    {
      words: /Unable to locate package|has no installation candidate|Couldn't find any package/,
      code: "image_not_found" as const,
      message: `debian:${suite} lacks one of the packages ${packages.join(", ")}`,
      hint: "check the names given to --extra",
    },
    {
      words:
        /Temporary failure resolving|Could not resolve|Could not connect|Unable to connect|Failed to fetch|Connection timed out/,
      code: "registry_unreachable" as const,
      message: "cannot reach Debian's archive",
    },
  ];
}

async function requireKeyring(): Promise<void> {
  await access(keyring).catch((error: unknown) => {
    throw new ForkdError("tool_missing", `the keys of Debian's archive are missing (${keyring})`, {
      hint: "run: apt-get install debian-archive-keyring",
      cause: error,
    });
  });
}
