import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { watchFor } from "@forkd/host/engine/firecracker/sockets.ts";

/** Undoes itself when it is disposed of. */
export interface OwnCp extends Disposable {
  /** Where the program is: what another process needs as the first of its PATH. */
  readonly dir: string;
}

/**
 * Has this process, and what it starts, run a shell script as `cp`: `$from` and `$to` are its last
 * two arguments, `real` copies as it was asked to.
 */
export async function ownCp(below: string, script: string): Promise<OwnCp> {
  const dir = await mkdtemp(join(below, "cp-"));
  const args = 'for arg; do from=$to; to=$arg; done; real() { PATH=$after; exec cp "$@"; }';
  const before = process.env["PATH"] ?? "";
  const text = `#!/bin/sh\nafter='${before}'\n${args}\n${script}\n`;
  await writeFile(join(dir, "cp"), text, { mode: 0o755 });
  process.env["PATH"] = `${dir}${delimiter}${before}`;
  const undo = (): void => {
    process.env["PATH"] = before;
  };
  return { dir, [Symbol.dispose]: undo };
}

export interface SlowCp extends OwnCp {
  /** The pid of the first that has begun to write its file; it does not end by itself. */
  readonly begun: Promise<number>;
}

/** Has this process, and what it starts, begin to copy files, and not come to an end. */
export async function slowCp(below: string): Promise<SlowCp> {
  const notes = await mkdtemp(join(below, "notes-"));
  const note = join(notes, "begun");
  const begun = watchFor(notes, "begun");
  const pid = begun.happened.then(async () => Number(await readFile(note, "utf8")));
  const tell = `echo $$ > '${note}.new' && mv '${note}.new' '${note}'`;
  const cp = await ownCp(below, `echo part > "$to"; ${tell}; exec sleep 600`);
  const undo = (): void => {
    cp[Symbol.dispose]();
    begun[Symbol.dispose]();
  };
  return { dir: cp.dir, begun: pid, [Symbol.dispose]: undo };
}
