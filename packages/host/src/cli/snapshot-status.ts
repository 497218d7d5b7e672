interface Judged {
  /** A snapshot's; of a lineage's node, a sandbox's state too. */
  readonly status: string;
  readonly bootable?: boolean | undefined;
}

/**
 * The word for people. A whole snapshot whose engine this host has not, or has in another version,
 * cannot be forked: ready is not the word. The API's is, and `bootable` beside it.
 */
export function statusWord({ status, bootable = true }: Judged): string {
  return status === "ready" && !bootable ? "not_bootable" : status;
}
