import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { watchFor } from "@forkd/host/engine/firecracker/sockets.ts";

/** `cp FROM TO` writes TO; `sync FILE` writes nothing that anybody reads. */
export type ProgramName = "cp" | "sync";

/**
 * Has this process, and what it starts, run a shell script as a program of that name, until it is
 * disposed of. `$last` is the last argument, `real "$@"` runs what the script stands for.
 */
export async function ownProgram(
  below: string,
  name: ProgramName,
  script: string,
): Promise<Disposable> {
  const dir = await mkdtemp(join(below, `${name}-`));
  const before = process.env["PATH"] ?? "";
  const lead = `for last; do :; done; real() { PATH='${before}'; exec ${name} "$@"; }`;
  await writeFile(join(dir, name), `#!/bin/sh\n${lead}\n${script}\n`, { mode: 0o755 });
  process.env["PATH"] = `${dir}${delimiter}${before}`;
  const undo = (): void => {
    process.env["PATH"] = before;
  };
  return { [Symbol.dispose]: undo };
}

export interface SlowProgram extends Disposable {
  /** The pid of the first that has begun its work; it does not end by itself. */
  readonly begun: Promise<number>;
}

/** Has this process, and what it starts, run a program that begins and does not come to an end. */
export async function slowProgram(below: string, name: ProgramName): Promise<SlowProgram> {
  const notes = await mkdtemp(join(below, "notes-"));
  const note = join(notes, "begun");
  const begun = watchFor(notes, "begun");
  const pid = begun.happened.then(async () => Number(await readFile(note, "utf8")));
  const part = name === "cp" ? 'echo part > "$last"; ' : "";
  const tell = `echo $$ > '${note}.new' && mv '${note}.new' '${note}'`;
  const program = await ownProgram(below, name, `${part}${tell}; exec sleep 600`);
  const undo = (): void => {
    program[Symbol.dispose]();
    begun[Symbol.dispose]();
  };
  return { begun: pid, [Symbol.dispose]: undo };
}
