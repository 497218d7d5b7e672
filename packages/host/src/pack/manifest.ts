import { engineNameSchema, limits, snapshotTagSchema } from "@forkd/api";
import { parse, stringify, TomlError } from "smol-toml";
import { z } from "zod";
import { scratchLayerPattern, snapshotFiles } from "../store/layout.ts";
import { manifestBytesMax as snapshotManifestBytesMax } from "../store/manifest.ts";
import { indexBytesMax } from "../store/memory-index.ts";
import { recordBytesMax } from "../store/rootfs.ts";
import { invalid } from "./tar-read.ts";
import { upstreamManifestSchema } from "./upstream-manifest.ts";

/** The first member of every pack, upstream's too. */
export const manifestName = "manifest.toml";

/** Ours; upstream's are 1 and 2, and its readers refuse what is newer. */
export const packVersion = 3;

/** A manifest of a chain of 65 with as many layers of scratch disks is a tenth of that. */
export const manifestBytesMax = 8 * 1024 * 1024;
const textMax = 4096;
/** Of what is told of a manifest that is wrong in every line. */
const reasonsCharsMax = 2000;
const mib = 1024 * 1024;
/** Device state: of QEMU 17 KB, of Firecracker 30 KB. */
const vmstateBytesMax = 64 * mib;
/** A kernel with its debug information, or an initramfs. */
const bootBytesMax = 1024 * mib;
/** All that one pack stores, holes not counted: half of what ext4 gives one file. */
const storedBytesMax = 8 * 1024 * 1024 * mib;

const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);
const bytesSchema = z.int().min(0);

/** What a host must have to run the children of a snapshot. */
const requiresSchema = z.object({
  /** As Node names it: `x64`. */
  arch: z.string().max(32),
  engine: engineNameSchema,
  engine_version: z.string().max(64),
  accel: z.enum(["kvm", "tcg"]),
  /** The engine's name of the CPU model. */
  cpu: z.string().max(256),
  /** Of the packing host's CPU, where the guest sees it: the kernel's names. Empty for `tcg`. */
  cpu_flags: z.string().max(64).array().max(1024),
  memory_mib: z.int().min(1).max(65_536),
  /** Of docs/guest-protocol.md. */
  agent_protocol: z.int().min(1),
});
export type Requires = Readonly<z.infer<typeof requiresSchema>>;

/** What a member of a pack is, by its path, which is never used as one. */
export type Member =
  | { readonly kind: "snapshot"; readonly tag: string; readonly name: string }
  /** A root image, and how its commands run. */
  | { readonly kind: "image" | "record"; readonly sha256: string }
  /** A kernel or an initramfs. */
  | { readonly kind: "boot"; readonly sha256: string };

const snapshotNames: readonly string[] = Object.values(snapshotFiles);

/** Undefined for a path that no pack has. */
export function parseMember(path: string): Member | undefined {
  const [dir, first = "", second = "", ...more] = path.split("/");
  if (more.length > 0) return undefined;
  if (dir === "snapshots") {
    const isKnown = snapshotNames.includes(second) || scratchLayerPattern.test(second);
    const isTag = snapshotTagSchema.safeParse(first).success;
    return isKnown && isTag ? { kind: "snapshot", tag: first, name: second } : undefined;
  }
  if (second !== "" || path.split("/").length !== 2) return undefined;
  const [, sha256, ending] = /^([0-9a-f]{64})(\.img|\.json)?$/.exec(first) ?? [];
  if (sha256 === undefined) return undefined;
  if (dir === "boot" && ending === undefined) return { kind: "boot", sha256 };
  if (dir === "images" && ending === ".img") return { kind: "image", sha256 };
  if (dir === "images" && ending === ".json") return { kind: "record", sha256 };
  return undefined;
}

/** The path of a member in the archive. */
export function memberPath(member: Member): string {
  switch (member.kind) {
    case "snapshot":
      return `snapshots/${member.tag}/${member.name}`;
    case "image":
      return `images/${member.sha256}.img`;
    case "record":
      return `images/${member.sha256}.json`;
    case "boot":
      return `boot/${member.sha256}`;
  }
}

/** Of a path that the schema below has let through. */
export function knownMember(path: string): Member {
  const member = parseMember(path);
  if (member === undefined) throw invalid(`${path} is no path of a pack`);
  return member;
}

const fileSchema = z
  .object({
    path: z.string().refine((path) => parseMember(path) !== undefined, "is no path of a pack"),
    size: bytesSchema,
    /** What the archive holds of it: the size without the holes. */
    stored_bytes: bytesSchema,
    /** Of the whole file, or of its stored bytes with their places; see docs/packs.md. */
    sha256: sha256Schema.optional(),
    stored_sha256: sha256Schema.optional(),
    /** The same file as that one, which comes before; it is not in the archive again. */
    same_as: z.string().optional(),
  })
  .refine(({ size, stored_bytes }) => stored_bytes <= size, "stores more than its size");
export type PackedFile = Readonly<z.infer<typeof fileSchema>>;

/** Files of one pack: a chain of full length with layers of scratch disks in each link. */
const filesMax = (limits.chainLinksMax + 1) * (limits.scratchLayersMax + 5);

const forkdManifestSchema = z.object({
  forkd_pack_version: z.literal(packVersion),
  tag: snapshotTagSchema,
  description: z.string().max(textMax).optional(),
  base_image: z.string().max(textMax).optional(),
  /** RFC 3339, UTC. */
  created_at: z.string().max(64),
  forkd_version: z.string().max(64),
  requires: requiresSchema,
  /** Base first; the last is the pack's own. */
  chain: z
    .object({ tag: snapshotTagSchema, manifest_sha256: sha256Schema })
    .array()
    .min(1)
    .max(limits.chainLinksMax + 1),
  files: fileSchema.array().max(filesMax),
});

/** `manifest.toml` of a pack of ours. */
export type ForkdManifest = Readonly<z.infer<typeof forkdManifestSchema>>;

export function encodeManifest(manifest: ForkdManifest): Buffer {
  return Buffer.from(stringify(forkdManifestSchema.parse(manifest)));
}

const anyManifestSchema = z.discriminatedUnion("forkd_pack_version", [
  forkdManifestSchema,
  ...upstreamManifestSchema.options,
]);

/** A manifest of a version that we read. */
export type AnyManifest = z.infer<typeof anyManifestSchema>;

/** Throws pack_invalid that says what is wrong in it, or that it is of a newer version. */
export function parsePackManifest(text: string): AnyManifest {
  const value = parseToml(text);
  const version = value["forkd_pack_version"];
  if (typeof version === "number" && version > packVersion) {
    throw invalid(`the pack is of version ${version}, this forkd reads up to ${packVersion}`);
  }
  const parsed = anyManifestSchema.safeParse(value);
  if (!parsed.success) {
    const words = z.prettifyError(parsed.error).slice(0, reasonsCharsMax);
    throw invalid(`${manifestName}: ${words}`);
  }
  if (parsed.data.forkd_pack_version === packVersion) requireSound(parsed.data);
  return parsed.data;
}

function parseToml(text: string): Readonly<Record<string, unknown>> {
  try {
    return parse(text);
  } catch (error) {
    const where = error instanceof TomlError ? `, line ${error.line}` : "";
    throw invalid(`${manifestName}${where}: it is not TOML`, error);
  }
}

/** What a schema cannot say of a manifest. */
function requireSound({ tag, chain, files }: ForkdManifest): void {
  const tags = new Set(chain.map((link) => link.tag));
  if (tags.size !== chain.length) throw invalid("the chain has a tag twice");
  if (chain.at(-1)?.tag !== tag) throw invalid(`the chain does not end with '${tag}'`);
  const seen = new Map<string, PackedFile>();
  for (const file of files) {
    if (seen.has(file.path)) throw invalid(`${file.path} is declared twice`);
    const member = parseMember(file.path);
    const isOfChain = member?.kind !== "snapshot" || tags.has(snapshotTagSchema.parse(member.tag));
    if (!isOfChain) throw invalid(`${file.path} is of no snapshot of the chain`);
    requireBounds(file, member);
    requireProof(file, member);
    requireSame(file, seen);
    seen.set(file.path, file);
  }
  requireRecords(seen);
  const stored = files.reduce((sum, file) => sum + file.stored_bytes, 0);
  if (stored > storedBytesMax) throw invalid(`it declares more than ${storedBytesMax} bytes`);
}

/** An image without the record of how its commands run is of no use, nor the other way round. */
function requireRecords(files: ReadonlyMap<string, PackedFile>): void {
  for (const path of files.keys()) {
    const member = knownMember(path);
    if (member.kind !== "image" && member.kind !== "record") continue;
    const other = memberPath({ ...member, kind: member.kind === "image" ? "record" : "image" });
    if (!files.has(other)) throw invalid(`${path} is declared without ${other}`);
  }
}

const memoryNames: readonly string[] = [snapshotFiles.memory, snapshotFiles.diff];

/** What a file of a pack may be at most: what the host's own could be. */
function sizeMax(member: Member | undefined): number {
  if (member?.kind === "record") return recordBytesMax;
  if (member?.kind === "image") return limits.rootfsMaxMib * mib;
  if (member?.kind !== "snapshot") return bootBytesMax;
  if (memoryNames.includes(member.name)) return limits.memoryMaxMib * mib;
  if (scratchLayerPattern.test(member.name)) return 2 * limits.scratchMaxMib * mib;
  if (member.name === snapshotFiles.manifest) return snapshotManifestBytesMax;
  return member.name === snapshotFiles.index ? indexBytesMax : vmstateBytesMax;
}

function requireBounds({ path, size }: PackedFile, member: Member | undefined): void {
  if (size > sizeMax(member)) throw invalid(`${path} is too large: ${size} bytes`);
}

/** Memory is proven by its index; whatever else is stored has one hash, a name's own if it is one. */
function requireProof(file: PackedFile, member: Member | undefined): void {
  const { path, sha256, stored_sha256, same_as } = file;
  const proofs = [sha256, stored_sha256, same_as].filter((proof) => proof !== undefined).length;
  const isMemory = member?.kind === "snapshot" && memoryNames.includes(member.name);
  if (proofs !== (isMemory ? 0 : 1)) throw invalid(`${path} must have one hash`);
  const isNamed = member?.kind === "image" || member?.kind === "boot";
  if (isNamed && sha256 !== member.sha256) throw invalid(`${path} has another hash than its name`);
}

/** Only layers of scratch disks are shared between snapshots. */
function requireSame(file: PackedFile, seen: ReadonlyMap<string, PackedFile>): void {
  if (file.same_as === undefined) return;
  const member = parseMember(file.path);
  const first = seen.get(file.same_as);
  const isLayer = member?.kind === "snapshot" && scratchLayerPattern.test(member.name);
  const other = first === undefined ? undefined : parseMember(first.path);
  const isOfLayer = other?.kind === "snapshot" && scratchLayerPattern.test(other.name);
  const isSound = isLayer && isOfLayer && first?.same_as === undefined && first?.size === file.size;
  if (!isSound) throw invalid(`${file.path} cannot be the same file as ${file.same_as}`);
}
