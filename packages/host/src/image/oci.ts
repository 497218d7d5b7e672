import { createHash } from "node:crypto";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import type { ImageConfig } from "../store/rootfs.ts";
import { parseImageConfig } from "./oci-config.ts";
import type { ImageRef } from "./ref.ts";
import { type RewordRule, reword, runTool } from "./tools.ts";

export type OciRef = Extract<ImageRef, { kind: "registry" | "oci" | "docker-archive" }>;

const inspectTimeoutMs = 60_000;
const copyTimeoutMs = 30 * 60_000;
const unpackTimeoutMs = 15 * 60_000;
const manifestBytesMax = 8 * 1024 * 1024;

/** What skopeo prints for each kind of failure (seen with 1.9 and 1.13). */
function rules(ref: OciRef): RewordRule[] {
  const what = describe(ref);
  return [
    {
      words:
        /invalid tar header|unexpected EOF|invalid character|not a valid|magic number|digest mismatch|digest did not match|does not match digest|Error determining manifest|loading tar component|invalid index\.json/i,
      code: "image_invalid",
      message: `${what} is damaged or no image`,
      hint: "make or download the image again",
    },
    {
      words:
        /manifest unknown|name unknown|no such image|not found|no descriptor found|requested access to the resource is denied|unauthorized|no image found|NoSuchKey/i,
      code: "image_not_found",
      message: `there is no image ${what}${ref.kind === "registry" ? ", or it needs a login" : ""}`,
      hint:
        ref.kind === "registry"
          ? "check the name and the tag; for a private image run: skopeo login HOST"
          : "check the path and the tag",
    },
    {
      words:
        /toomanyrequests|talk to a V1|unexpected HTTP status|dial tcp|connection re|no such host|i\/o timeout|x509|tls:|server gave HTTP response|pinging container registry|EOF|TLS handshake|network is unreachable/i,
      code: "registry_unreachable",
      message: `cannot reach the registry of ${what}`,
    },
  ];
}

function describe(ref: OciRef): string {
  if (ref.kind === "registry") return ref.name;
  const path = ref.kind === "oci" ? ref.dir : ref.file;
  return ref.tag === null ? path : `${path}:${ref.tag}`;
}

/** As skopeo spells it (containers-transports(5)). */
function transportName(ref: OciRef, digest: string | null): string {
  if (ref.kind === "registry") {
    const name = digest === null ? oneSelector(ref.name) : `${withoutTag(ref.name)}@${digest}`;
    return `docker://${name}`;
  }
  const path = ref.kind === "oci" ? ref.dir : ref.file;
  return `${ref.kind}:${ref.tag === null ? path : `${path}:${ref.tag}`}`;
}

/** NAME:TAG@DIGEST means NAME@DIGEST, and skopeo takes only the latter. */
function oneSelector(name: string): string {
  return name.replace(/:[A-Za-z0-9_][A-Za-z0-9_.-]*(?=@sha256:)/, "");
}

function withoutTag(name: string): string {
  return name.replace(/@sha256:[0-9a-f]{64}$/, "").replace(/:[A-Za-z0-9_][A-Za-z0-9_.-]*$/, "");
}

/**
 * Digest of the manifest (list) that the reference stands for now. Throws image_not_found,
 * image_invalid, registry_unreachable, tool_missing.
 */
export async function resolveDigest(ref: OciRef, signal?: AbortSignal): Promise<string> {
  await checkPath(ref);
  const verify = ref.kind === "registry" && ref.loopback ? ["--tls-verify=false"] : [];
  const { stdout } = await skopeo(ref, {
    args: ["inspect", "--raw", ...verify, transportName(ref, null)],
    timeoutMs: inspectTimeoutMs,
    ...(signal && { signal }),
  });
  return `sha256:${createHash("sha256").update(stdout).digest("hex")}`;
}

async function checkPath(ref: OciRef): Promise<void> {
  if (ref.kind === "registry") return;
  const path = ref.kind === "oci" ? join(ref.dir, "index.json") : ref.file;
  await access(path).catch((error: unknown) => {
    if (!isErrno(error, "ENOENT") && !isErrno(error, "ENOTDIR")) throw error;
    throw new ForkdError("image_not_found", `there is no image at ${describe(ref)}`, {
      hint: "check the path",
      cause: error,
    });
  });
}

export interface PullPlace {
  /** Directory for the layers as they come. */
  readonly workDir: string;
  /** Where the root directory will be made; must not exist. */
  readonly treeDir: string;
  readonly tmpDir: string;
  readonly signal: AbortSignal;
}

/**
 * Brings the image to this host and unpacks it with owners, hard links, attributes and whiteouts.
 * `digest` pins what a moving tag of a registry meant when the cache key was made.
 */
export async function pullImage(
  ref: OciRef,
  digest: string,
  place: PullPlace,
): Promise<ImageConfig> {
  const { workDir, treeDir, tmpDir, signal } = place;
  const layout = `oci:${join(workDir, "layout")}:image`;
  const verify = ref.kind === "registry" && ref.loopback ? ["--src-tls-verify=false"] : [];
  const source = transportName(ref, digest);
  await skopeo(ref, {
    args: ["--tmpdir", tmpDir, "copy", "--quiet", "--remove-signatures", ...verify, source, layout],
    timeoutMs: copyTimeoutMs,
    signal,
  });
  const inspect = async (what: readonly string[]): Promise<string> => {
    const args = ["inspect", "--raw", ...what, layout];
    return (await skopeo(ref, { args, timeoutMs: inspectTimeoutMs, signal })).stdout;
  };
  const config = parseImageConfig(await inspect(["--config"]));
  const plain = hasZstdLayer(await inspect([])) ? await decompress(ref, layout, place) : layout;
  await unpack(ref, plain.slice("oci:".length), { treeDir, signal });
  return config;
}

/** umoci takes layers compressed with gzip, or not at all. */
function hasZstdLayer(manifest: string): boolean {
  return /"mediaType"\s*:\s*"[^"]*\+zstd"/.test(manifest);
}

/** The same image with plain layers; skopeo decompresses only into its own kind of directory. */
async function decompress(
  ref: OciRef,
  layout: string,
  { workDir, tmpDir, signal }: PullPlace,
): Promise<string> {
  const dir = `dir:${join(workDir, "plain")}`;
  const plain = `oci:${join(workDir, "plain-layout")}:image`;
  const hops = [
    ["--dest-decompress", layout, dir],
    ["--dest-oci-accept-uncompressed-layers", dir, plain],
  ];
  for (const hop of hops) {
    const args = ["--tmpdir", tmpDir, "copy", "--quiet", ...hop];
    await skopeo(ref, { args, timeoutMs: copyTimeoutMs, signal });
  }
  return plain;
}

async function unpack(
  ref: OciRef,
  image: string,
  { treeDir, signal }: Pick<PullPlace, "treeDir" | "signal">,
): Promise<void> {
  try {
    await runTool(["umoci", "raw", "unpack", "--image", image, treeDir], {
      timeoutMs: unpackTimeoutMs,
      signal,
    });
  } catch (error) {
    const message = `a layer of ${describe(ref)} cannot be unpacked`;
    throw reword(error, [{ words: /./, code: "image_invalid", message }]);
  }
}

interface SkopeoCall {
  readonly args: readonly string[];
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

async function skopeo(ref: OciRef, { args, ...call }: SkopeoCall): Promise<{ stdout: string }> {
  const policy = await access("/etc/containers/policy.json").then(
    () => [],
    // Some distributions ship skopeo without one, and it then refuses everything.
    () => ["--insecure-policy"],
  );
  try {
    return await runTool(["skopeo", ...policy, ...args], {
      ...call,
      stdoutBytesMax: manifestBytesMax,
    });
  } catch (error) {
    const late = error instanceof ForkdError && error.code === "deadline_exceeded";
    if (!late || ref.kind !== "registry") throw reword(error, rules(ref));
    throw new ForkdError("registry_unreachable", `the registry of ${ref.name} does not answer`, {
      cause: error,
    });
  }
}
