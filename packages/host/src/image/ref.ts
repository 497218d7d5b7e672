import { isAbsolute, resolve } from "node:path";
import { ForkdError } from "@forkd/api";

/** Where a root image comes from. Paths are absolute. */
export type ImageRef =
  | { readonly kind: "registry"; readonly name: string; readonly loopback: boolean }
  | { readonly kind: "oci"; readonly dir: string; readonly tag: string | null }
  | { readonly kind: "docker-archive"; readonly file: string; readonly tag: string | null }
  | { readonly kind: "debian"; readonly suite: string }
  | { readonly kind: "tar"; readonly file: string }
  | { readonly kind: "dir"; readonly dir: string };

const refBytesMax = 1024;

/** Suites that Debian's archive and mmdebstrap know; other `debian:TAG` is an image of a registry. */
const debianSuites = new Set(
  "bullseye bookworm trixie forky sid oldstable stable testing unstable".split(" "),
);

// The grammar of references: github.com/distribution/reference.
const component = "[a-z0-9]+(?:(?:\\.|_{1,2}|-+)[a-z0-9]+)*";
const host = "(?:\\[[0-9a-fA-F:]+\\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::\\d{1,5})?";
const tagText = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
const registryName = new RegExp(
  `^(?:(?<host>${host})/)?${component}(?:/${component})*(?::${tagText})?(?:@sha256:[0-9a-f]{64})?$`,
);
const tagPattern = new RegExp(`^${tagText}$`);
const loopbackHost = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/;

/**
 * Reads what `forkd from-image` takes. Relative paths are taken from `cwd`. Throws image_invalid
 * for a text that is no form of it; whether the image exists is not looked at.
 */
export function parseImageRef(text: string, cwd: string): ImageRef {
  if (text.length > refBytesMax || /[\0-\x20\x7f]/.test(text)) throw invalid(text.slice(0, 80));
  const [scheme = "", rest = ""] = splitOnce(text, ":");
  switch (scheme) {
    case "docker":
      return rest.startsWith("//") ? parseRegistry(text, rest.slice(2)) : parseRegistry(text, text);
    case "oci": {
      const { path, tag } = parsePathAndTag(text, rest);
      return { kind: "oci", dir: resolve(cwd, path), tag };
    }
    case "docker-archive": {
      const { path, tag } = parsePathAndTag(text, rest);
      return { kind: "docker-archive", file: resolve(cwd, path), tag };
    }
    case "tar":
      return { kind: "tar", file: parsePath(text, rest, cwd) };
    case "dir":
      return { kind: "dir", dir: parsePath(text, rest, cwd) };
    case "debian":
      if (debianSuites.has(rest)) return { kind: "debian", suite: rest };
      return parseRegistry(text, text);
    default:
      return parseRegistry(text, text);
  }
}

function parseRegistry(text: string, name: string): ImageRef {
  const match = registryName.exec(name);
  if (match === null) throw invalid(text);
  return { kind: "registry", name, loopback: loopbackHost.test(match.groups?.["host"] ?? "") };
}

/** `PATH` or `PATH:TAG`; a path with a colon in it cannot be told apart and is refused. */
function parsePathAndTag(text: string, rest: string): { path: string; tag: string | null } {
  const [path, tag] = splitOnce(rest, ":");
  if (path === "" || (tag !== undefined && !tagPattern.test(tag))) throw invalid(text);
  return { path, tag: tag ?? null };
}

function parsePath(text: string, path: string, cwd: string): string {
  if (path === "") throw invalid(text);
  return isAbsolute(path) ? path : resolve(cwd, path);
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}

function invalid(text: string): ForkdError {
  return new ForkdError("image_invalid", `"${text}" is no image reference`, {
    hint:
      "use NAME:TAG or docker://HOST/NAME:TAG, oci:DIR[:TAG], docker-archive:FILE, " +
      "debian:SUITE, tar:FILE or dir:DIR",
  });
}

const packagePattern =
  /^[A-Za-z0-9][A-Za-z0-9+._-]{0,126}[A-Za-z0-9+.](?:[=:][A-Za-z0-9.+~:-]{1,64})?$/;
const packagesMax = 200;

/** Checks names of `--extra` packages; sorted, without repetition. Throws image_invalid. */
export function parsePackages(names: readonly string[]): string[] {
  if (names.length > packagesMax) {
    throw new ForkdError("image_invalid", `more than ${packagesMax} extra packages`);
  }
  // One letter is a name too ("m4" is not one letter, "R" is).
  const bad = names.find((name) => !packagePattern.test(name) && !/^[A-Za-z]$/.test(name));
  if (bad !== undefined) {
    throw new ForkdError("image_invalid", `"${bad.slice(0, 80)}" is no package name`, {
      hint: "give --extra the name of a package of the image's distribution",
    });
  }
  return [...new Set(names)].sort();
}
