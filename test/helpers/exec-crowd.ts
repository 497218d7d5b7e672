import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { type GuestProcess, type Sandboxes, Snapshot } from "@forkd/sdk";

export interface CrowdOptions {
  readonly sandboxes: number;
  /** In each sandbox, all at the same time. */
  readonly execs: number;
  /** Bytes that each exec gives back. */
  readonly bytes: number;
}

type Connection = NonNullable<Parameters<typeof Snapshot.get>[1]>;

/**
 * Runs many commands at once: all are started before the first gets its input, every fourth floods
 * a client that never reads, the others give back what they are sent, which is compared. Returns
 * how many there were.
 */
export async function execCrowd(
  tag: string,
  { sandboxes: n, execs, bytes }: CrowdOptions,
  connection: Connection,
): Promise<number> {
  const snapshot = await Snapshot.get(tag, connection);
  await using sandboxes: Sandboxes = await snapshot.fork({ n });
  const slots = sandboxes.flatMap((sandbox) => Array.from({ length: execs }, () => sandbox));
  const isFlood = (index: number): boolean => index % 4 === 3;
  const processes = await Promise.all(
    slots.map((sandbox, index) =>
      isFlood(index) ? sandbox.spawn("cat /dev/zero") : sandbox.spawn("cat", { stdin: true }),
    ),
  );
  const echoes = processes.filter((_, index) => !isFlood(index));
  await Promise.all(echoes.map((process) => echo(process, randomBytes(bytes))));
  const floods = processes.filter((_, index) => isFlood(index));
  for (const process of floods) process.kill();
  const ends = await Promise.all(floods.map((process) => process.wait()));
  for (const { signal } of ends) assert.equal(signal, "SIGKILL");
  return echoes.length + floods.length;
}

async function echo(process: GuestProcess, data: Buffer): Promise<void> {
  const fed = process.write(data).then(() => process.end());
  const parts: Uint8Array[] = [];
  for await (const part of process.stdout) parts.push(part);
  await fed;
  assert.ok(Buffer.concat(parts).equals(data), `${process.id} gave back something else`);
  assert.equal((await process.wait()).exit_code, 0);
}
