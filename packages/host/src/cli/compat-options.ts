import { ForkdError } from "@forkd/api";
import { type Command, Option } from "commander";
import type { Flags } from "./flags.ts";

/** Options of earlier versions that scripts still give. They are accepted, and said to be idle. */
const ignorable = {
  cache: {
    flags: "--cache <dir>",
    note: "--cache is not needed: built images are in the data directory, see forkd where",
  },
  bootWaitSecs: {
    flags: "--boot-wait-secs <secs>",
    note: "--boot-wait-secs is not needed: the snapshot is taken when the guest says it is warm",
  },
  rw: {
    flags: "--rw",
    note: "--rw is not needed: a guest always writes to a layer above its root image",
  },
  keepWorkdir: {
    flags: "--keep-workdir",
    note: "--keep-workdir has no effect: work directories end with their guests",
  },
} as const;

export type Ignorable = keyof typeof ignorable;

export function addIgnoredOptions(command: Command, names: readonly Ignorable[]): Command {
  for (const name of names) {
    command.addOption(new Option(ignorable[name].flags).hideHelp());
  }
  const tap = new Option("--tap <device>").hideHelp();
  return command.addOption(tap);
}

/** A sentence for each one that was given. */
export function noteIgnored(flags: Flags, names: readonly Ignorable[]): string[] {
  const given = names.filter((name) => flags.text(name) !== undefined || flags.on(name));
  return given.map((name) => ignorable[name].note);
}

/** Throws bad_request: a guest without the network that was asked for would be a surprise. */
export function refuseTap(flags: Flags): void {
  if (flags.text("tap") === undefined) return;
  throw new ForkdError("bad_request", "--tap is not supported by this version of forkd", {
    hint: "leave --tap out: the guest is reached with exec and eval, without a network",
  });
}
