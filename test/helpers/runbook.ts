/** The commands of docs/runbook.md, with what it says that they print. */

export interface RunbookCommand {
  readonly command: string;
  /** Lines; `...` in one is any text, and alone any lines. */
  readonly prints: readonly string[];
}

export interface RunbookPart {
  /** The heading above it. */
  readonly heading: string;
  readonly commands: readonly RunbookCommand[];
}

const any = "...";

/** Each `console` block's commands under their heading. Throws for output before a command. */
export function runbookOf(text: string): RunbookPart[] {
  const parts: { heading: string; commands: RunbookCommand[] }[] = [];
  let heading = "";
  for (const [, title, body] of text.matchAll(/^#+ (.+)$|^```console\n([\s\S]*?)^```$/gm)) {
    if (title !== undefined) heading = title;
    if (body === undefined) continue;
    const commands = commandsOf(body);
    const last = parts.at(-1);
    if (last?.heading === heading) last.commands.push(...commands);
    else parts.push({ heading, commands });
  }
  return parts;
}

function commandsOf(body: string): RunbookCommand[] {
  const commands: { command: string; prints: string[] }[] = [];
  for (const line of body.trimEnd().split("\n")) {
    const last = commands.at(-1);
    if (last?.prints.length === 0 && last.command.endsWith("\\")) last.command += `\n${line}`;
    else if (line.startsWith("$ ")) commands.push({ command: line.slice(2), prints: [] });
    else if (last === undefined) throw new Error(`there is no command above ${line}`);
    else last.prints.push(line);
  }
  return commands;
}

/** Whether the output is what a runbook says; blanks at the ends of lines do not count. */
export function isPrinted(prints: readonly string[], output: string): boolean {
  const lines = output.split("\n").map((line) => line.trim());
  while (lines.at(-1) === "") lines.pop();
  return matches(prints, lines);
}

function matches(prints: readonly string[], lines: readonly string[]): boolean {
  const [first, ...rest] = prints;
  if (first === undefined) return lines.length === 0;
  if (first !== any) {
    const [line, ...others] = lines;
    return line !== undefined && isLike(first, line) && matches(rest, others);
  }
  return Array.from({ length: lines.length + 1 }, (_, skip) => lines.slice(skip)).some((left) =>
    matches(rest, left),
  );
}

/** Runs of blanks are one: columns move with what stands in them. */
function isLike(pattern: string, line: string): boolean {
  const blanks = (text: string): string => text.replaceAll(/\s+/g, " ");
  const parts = blanks(pattern)
    .split(any)
    .map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(blanks(line));
}
