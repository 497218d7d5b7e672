import { ForkdError, limits } from "@forkd/api";
import { z } from "zod";

/** A package of a hub. */
export interface HubRef {
  readonly owner: string;
  readonly name: string;
  /** `latest` when none is named. */
  readonly version: string;
}

const word = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}";
const versionWord = "[A-Za-z0-9][A-Za-z0-9._+-]{0,63}";
const refPattern = new RegExp(`^(${word})/(${word})(?:@(${versionWord}))?$`);

/** What a version is called when nobody names one. */
export const latestVersion = "latest";

/** `OWNER/NAME[@VERSION]`; undefined for anything else. */
export function parseHubRef(text: string): HubRef | undefined {
  const [, owner, name, version = latestVersion] = refPattern.exec(text) ?? [];
  return owner === undefined || name === undefined ? undefined : { owner, name, version };
}

const urlCharsMax = 2048;
const text = (charsMax: number) => z.string().max(charsMax).nullish();

/** One version of a package; the fields of the format's version 1, what is unknown is ignored. */
const versionSchema = z.object({
  url: z.string().max(urlCharsMax),
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .nullish(),
  size_bytes: z.int().min(0).max(limits.transferBytesMax).nullish(),
  memory_mib: z.int().min(0).max(1_048_576).nullish(),
  base_image: text(512),
  created_at: text(64),
});
export type HubVersion = z.infer<typeof versionSchema>;

const packageSchema = z.object({
  description: text(4096),
  versions: bounded(z.string().regex(new RegExp(`^${versionWord}$`)), versionSchema, {
    max: limits.hubVersionsMax,
    of: "versions",
  }),
});

/** A hub's `registry.json`: what it has, by `OWNER/NAME` and version. */
const indexSchema = z.object({
  schema_version: z.literal(1),
  packages: bounded(z.string().regex(new RegExp(`^${word}/${word}$`)), packageSchema, {
    max: limits.hubPackagesMax,
    of: "packages",
  }),
});
export type HubIndex = z.infer<typeof indexSchema>;

function bounded<Value extends z.ZodType>(
  key: z.ZodString,
  value: Value,
  { max, of }: { readonly max: number; readonly of: string },
) {
  return z
    .record(key, value)
    .refine((all) => Object.keys(all).length <= max, { error: `more than ${max} ${of}` });
}

/** Throws hub_invalid that says where the text is not an index of version 1. */
export function parseHubIndex(json: string, name: string): HubIndex {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch (error) {
    throw new ForkdError("hub_invalid", `${name} is no JSON`, { cause: error });
  }
  const read = indexSchema.safeParse(parsed);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  const where = issue === undefined || issue.path.length === 0 ? "it" : issue.path.join(".");
  const message = `${name} is no index of a hub: ${where}: ${issue?.message ?? "not understood"}`;
  throw new ForkdError("hub_invalid", message.slice(0, 400));
}

/** What a hub says of a package's version. Throws remote_not_found that lists what there is. */
export function findVersion(index: HubIndex, ref: HubRef): HubVersion {
  const id = `${ref.owner}/${ref.name}`;
  const versions = Object.hasOwn(index.packages, id) ? index.packages[id]?.versions : undefined;
  if (versions === undefined) {
    throw new ForkdError("remote_not_found", `the hub has no package ${id}`, {
      hint: "list what it has with: forkd hub ls",
    });
  }
  const found = Object.hasOwn(versions, ref.version) ? versions[ref.version] : undefined;
  if (found !== undefined) return found;
  const known = Object.keys(versions).slice(0, 10).join(", ");
  throw new ForkdError("remote_not_found", `the hub has no version ${ref.version} of ${id}`, {
    hint: known === "" ? "it has none of it" : `it has: ${known}`,
  });
}
