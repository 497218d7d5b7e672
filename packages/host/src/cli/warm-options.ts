import { limits } from "@forkd/api";
import { type Command, Option } from "commander";
import type { WarmSpec } from "../fork/service.ts";
import { type Flags, usage } from "./flags.ts";
import { parseReadyProbe } from "./parse.ts";
import { collect } from "./verb.ts";

/** How the parent gets warm before it is frozen: the options of from-image and snapshot. */
export function addWarmOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--warm <runtime>", "start this interpreter and keep it warm for eval").choices([
        "python",
        "node",
      ]),
    )
    .option("--import <module>", "import this module before the freeze; may repeat", collect)
    .option("--warm-cmd <command>", "start this command before the freeze; needs --ready")
    .option("--ready <probe>", "when --warm-cmd is warm: tcp:PORT, file:/PATH or line:TEXT")
    .option(
      "--warm-timeout-secs <secs>",
      "give up when the guest is not warm by then",
      String(limits.warmTimeoutDefaultSecs),
    );
}

export function parseWarmOptions(flags: Flags): WarmSpec {
  const command = flags.text("warmCmd") ?? null;
  const ready = flags.text("ready");
  if (command !== null && ready === undefined) {
    throw usage("--warm-cmd needs --ready", "say when it is warm, for example --ready tcp:8080");
  }
  if (command === null && ready !== undefined) throw usage("--ready needs --warm-cmd");
  const imports = flags.list("import");
  if (imports.length > limits.warmImportsMax) {
    throw usage(`at most ${limits.warmImportsMax} --import are allowed`);
  }
  const timeoutSecs = flags.integer("warmTimeoutSecs", { min: 1, max: limits.warmTimeoutMaxSecs });
  return {
    runtime: runtimeOf(flags.text("warm"), imports),
    imports,
    command,
    ready: ready === undefined ? null : parseReadyProbe(ready),
    timeoutMs: timeoutSecs * 1000,
  };
}

/** `--import` alone means Python. The parser has let only these two names through. */
function runtimeOf(name: string | undefined, imports: readonly string[]): WarmSpec["runtime"] {
  if (name === "node" || name === "python") return name;
  return imports.length > 0 ? "python" : null;
}
