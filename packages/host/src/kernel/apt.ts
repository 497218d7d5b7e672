import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, toForkdError } from "@forkd/api";
import { run } from "../lib/exec.ts";

/** The package that always depends on the distribution's newest kernel for virtual machines. */
const metaPackages: Readonly<Record<string, string>> = {
  debian: "linux-image-cloud-amd64",
  ubuntu: "linux-image-virtual",
};

const packageName = /^[a-z0-9][a-z0-9+.-]{1,127}$/;
const kernelPackage = /^linux-(image|modules)-(unsigned-)?\d/;
const packagesMax = 8;
const downloadTimeoutMs = 10 * 60_000;
/** What apt prints is parsed: its words must not depend on the user's language. */
const fixedWords = ["env", "LC_ALL=C"];

/** Throws kernel_not_found on a distribution whose kernel package we do not know. */
export function metaPackageFor(osRelease: string): string {
  const fields = new Map(
    osRelease.split("\n").map((line): [string, string] => {
      const [name = "", value = ""] = line.split("=", 2);
      return [name, value.replace(/^["']|["']$/g, "")];
    }),
  );
  const ids = [fields.get("ID") ?? "", ...(fields.get("ID_LIKE") ?? "").split(" ")];
  // Of a derivative's relatives the nearest is named first.
  const meta = ids.map((id) => metaPackages[id]).find((name) => name !== undefined);
  if (meta !== undefined) return meta;
  throw new ForkdError("kernel_not_found", `no kernel package is known for "${ids[0]}"`, {
    hint: "bring your own: FORKD_KERNEL=/path/to/vmlinuz (with virtio built in), or --kernel",
  });
}

/** The versioned kernel packages among the names behind `Depends:` in what apt-cache prints. */
export function parseKernelPackages(depends: string): string[] {
  const names = [...depends.matchAll(/^ *\|?Depends: (\S+)$/gm)].map(([, name = ""]) => name);
  return [
    ...new Set(names.filter((name) => packageName.test(name) && kernelPackage.test(name))),
  ].sort();
}

/** "name=version" of each package that `apt-cache policy` has a candidate for. */
export function parseCandidates(policy: string): string[] {
  return [...policy.matchAll(/^([a-z0-9][a-z0-9+.-]*):\n.*\n +Candidate: (\S+)$/gm)].flatMap(
    ([, name, version]) => (version === "(none)" ? [] : [`${name}=${version}`]),
  );
}

/**
 * "name=version" of the image and module packages that a meta package stands for now; empty when
 * apt does not know it.
 */
export async function findKernelPackages(meta: string): Promise<string[]> {
  const depends = await apt(["apt-cache", "depends", "--important", "--recurse", meta]).catch(
    (error: unknown) => {
      if (toForkdError(error).code === "tool_failed") return { stdout: "" };
      throw error;
    },
  );
  const names = parseKernelPackages(depends.stdout).slice(0, packagesMax);
  if (names.length === 0) return [];
  return parseCandidates((await apt(["apt-cache", "policy", ...names])).stdout);
}

/** Asks the archive for its newest lists; needs root. */
export async function updateLists(signal?: AbortSignal): Promise<void> {
  await apt(["apt-get", "update", "-q"], { ...(signal && { signal }) });
}

/** Downloads packages, verified by apt, and answers the paths of their files. */
export async function downloadPackages(
  packages: readonly string[],
  dir: string,
  signal?: AbortSignal,
): Promise<string[]> {
  // apt's own download user may not enter a staging directory; apt would warn and go on as root.
  const asRoot = ["-o", "APT::Sandbox::User=root"];
  await apt(["apt-get", "download", "-q", ...asRoot, ...packages], {
    cwd: dir,
    ...(signal && { signal }),
  });
  const names = (await readdir(dir)).filter((name) => name.endsWith(".deb")).sort();
  return names.map((name) => join(dir, name));
}

async function apt(
  argv: readonly string[],
  options: { readonly cwd?: string; readonly signal?: AbortSignal } = {},
): Promise<{ readonly stdout: string }> {
  try {
    return await run([...fixedWords, ...argv], { ...options, timeoutMs: downloadTimeoutMs });
  } catch (error) {
    const failure = toForkdError(error);
    if (
      failure.code !== "tool_failed" ||
      !/Could not resolve|Failed to fetch|Unable to connect/i.test(failure.message)
    ) {
      throw error;
    }
    throw new ForkdError(
      "registry_unreachable",
      `apt cannot reach its archive: ${failure.message}`,
      {
        hint: "check the network, then run: apt-get update",
        cause: error,
      },
    );
  }
}
