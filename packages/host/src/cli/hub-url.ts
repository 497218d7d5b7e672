import type { Command } from "commander";
import { Option } from "commander";
import { type Flags, usage } from "./flags.ts";

/** The option of every verb that reads a hub. */
export function withHubOption(command: Command): Command {
  return command.addOption(
    new Option("--hub <url>", "the hub's registry.json").env("FORKD_HUB_URL"),
  );
}

/** The hub that was named; there is no other. Throws bad_request. */
export function hubUrl(flags: Flags): URL {
  const text = flags.text("hub");
  if (text === undefined) {
    throw usage("no hub is named", "add --hub https://HOST/registry.json, or set FORKD_HUB_URL");
  }
  const url = URL.parse(text);
  if (url !== null && (url.protocol === "http:" || url.protocol === "https:")) return url;
  throw usage(
    `--hub ${JSON.stringify(text.slice(0, 200))} is not an http or https address`,
    "for example: --hub https://HOST/registry.json",
  );
}
