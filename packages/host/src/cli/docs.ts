import type { Command } from "commander";
import { exitCodesHelp } from "./exit.ts";
import { buildProgram } from "./program.ts";

/** `docs/cli.md`, from the command tree itself. */
export function renderCliDocs(): string {
  const program = buildProgram(async () => undefined);
  const lines = [
    "# Command line",
    "",
    "Generated from the commands themselves; do not edit.",
    "",
    program.description(),
    "",
    "Results go to standard output, progress and errors to standard error. `NO_COLOR` is respected.",
    "With `--json` the result is one JSON value, and an error is one JSON object",
    "`{error, code, hint}` on standard error; the codes are in [errors.md](errors.md).",
    "",
    "## Options of every command",
    "",
    ...optionTable(program),
    "",
    "## Exit codes",
    "",
    ...fenced(exitCodesHelp.trim().split("\n").slice(1)),
    "",
    ...leaves(program).flatMap(({ path, command }) => section(path, command)),
  ];
  return `${lines.join("\n").trimEnd()}\n`;
}

interface Leaf {
  readonly path: string;
  readonly command: Command;
}

function leaves(parent: Command, prefix: string = parent.name()): Leaf[] {
  return parent.commands.flatMap((command) => {
    const path = `${prefix} ${command.name()}`;
    return command.commands.length > 0 ? leaves(command, path) : [{ path, command }];
  });
}

function section(path: string, command: Command): string[] {
  const options = optionTable(command);
  return [
    `## ${path}`,
    "",
    `${capital(command.description())}.`,
    "",
    ...fenced([`${path} ${command.usage()}`]),
    "",
    ...(options.length > 2 ? [...options, ""] : []),
  ];
}

function optionTable(command: Command): string[] {
  const rows = command.createHelp().visibleOptions(command);
  return [
    "| option | meaning |",
    "|---|---|",
    ...rows.map((option) => {
      const facts = [
        option.mandatory ? "required" : undefined,
        option.argChoices?.join(" or "),
        typeof option.defaultValue === "string" ? `default ${option.defaultValue}` : undefined,
        option.envVar === undefined ? undefined : `environment ${option.envVar}`,
      ].filter((fact) => fact !== undefined);
      const more = facts.length > 0 ? ` (${facts.join(", ")})` : "";
      return `| \`${option.flags}\` | ${capital(option.description)}${more}. |`;
    }),
  ];
}

function fenced(lines: readonly string[]): string[] {
  return ["```text", ...lines, "```"];
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
