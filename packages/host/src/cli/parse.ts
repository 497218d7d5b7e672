import type { ReadyProbe } from "../fork/service.ts";
import { packageVersion } from "../lib/version.ts";
import { usage } from "./flags.ts";

/** Texts of the command line that mean more than a text. All throw bad_request. */

const portMax = 65_535;

function parsePort(text: string): number | undefined {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= portMax ? port : undefined;
}

/** `tcp:PORT`, `file:/PATH` or `line:TEXT`. */
export function parseReadyProbe(text: string): ReadyProbe {
  const cut = text.indexOf(":");
  const kind = text.slice(0, Math.max(cut, 0));
  const rest = text.slice(cut + 1);
  if (kind === "tcp") {
    const port = parsePort(rest);
    if (port !== undefined) return { tcp: port };
  }
  if (kind === "file" && rest.startsWith("/")) return { file: rest };
  if (kind === "line" && rest !== "") return { line: rest };
  throw usage(
    `--ready ${JSON.stringify(text.slice(0, 80))} is not a readiness probe`,
    "write --ready tcp:PORT, --ready file:/PATH or --ready line:TEXT",
  );
}

export interface Target {
  readonly host: string;
  readonly port: number;
}

const hostBytesMax = 253;

/** `HOST:PORT`; an IPv6 host stands in brackets. */
export function parseTarget(text: string, flag = "--target"): Target {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = parsePort(match?.[3] ?? "");
  if (host !== "" && host.length <= hostBytesMax && port !== undefined) return { host, port };
  throw usage(
    `${flag} ${JSON.stringify(text.slice(0, 80))} is not HOST:PORT`,
    `for example: ${flag} 10.42.0.2:8888`,
  );
}

/** A name under /var/run/netns; it becomes part of a path. */
export function parseNetns(text: string): string {
  if (/^[A-Za-z0-9_.-]{1,64}$/.test(text) && text !== "." && text !== "..") return text;
  throw usage(
    `--child ${JSON.stringify(text.slice(0, 80))} is not the name of a network namespace`,
    "list the names with: ip netns list",
  );
}

/** Each text is `KEY=VALUE`; the last of equal keys wins. */
export function parseEnvPairs(texts: readonly string[]): Record<string, string> {
  const pairs = texts.map((text): [string, string] => {
    const match = /^([A-Za-z_][A-Za-z0-9_]*)=([\s\S]*)$/.exec(text);
    if (match === null) {
      throw usage(
        `-e ${JSON.stringify(text.slice(0, 80))} is not KEY=VALUE`,
        "for example: -e LANG=C.UTF-8",
      );
    }
    return [match[1] ?? "", match[2] ?? ""];
  });
  return Object.fromEntries(pairs);
}

/** An image's name as part of a tag: lower case, dashes for the rest, at most `lengthMax`. */
export function slugOf(ref: string, lengthMax: number): string {
  const slug = ref
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replace(/^-/, "")
    .slice(0, lengthMax)
    .replace(/-$/, "");
  return slug === "" ? "image" : slug;
}

/** This build's version, from the package that the file is part of. */
export const cliVersion: () => string = packageVersion;
