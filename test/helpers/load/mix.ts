/** What clients of all kinds ask of a daemon at once. */
import { ForkdError } from "@forkd/api";
import type { Client } from "@forkd/sdk";

/** What a call may ask with. */
export interface LoadStage {
  readonly client: Client;
  /** Knows another token than the daemon. */
  readonly stranger: Client;
  readonly tag: string;
  /** Sandboxes that live as long as the load. */
  readonly ids: readonly string[];
}

interface Call {
  readonly name: string;
  /** How often, against the others. */
  readonly weight: number;
  readonly run: (stage: LoadStage, id: string) => Promise<unknown>;
}

/** A call that must fail with this code; anything else is thrown on. */
async function refused(work: Promise<unknown>, code: string): Promise<void> {
  const end = await work.then(
    () => "an answer",
    (error: unknown) => error,
  );
  if (end instanceof ForkdError && end.code === code) return;
  throw end instanceof Error ? end : new Error(`expected ${code} and got ${String(end)}`);
}

/** A spawn whose child is ended again, so that only what is lost adds up. */
async function churn({ client, tag }: LoadStage): Promise<void> {
  const children = await client.createSandboxes({ body: { snapshot_tag: tag, n: 1 } });
  for (const { id } of children) await client.deleteSandbox({ params: { id } });
}

const text = "x".repeat(64 * 1024);

export const calls: readonly Call[] = [
  { name: "health", weight: 20, run: ({ client }) => client.health() },
  { name: "version", weight: 6, run: ({ client }) => client.version() },
  { name: "metrics", weight: 2, run: ({ client }) => client.metrics() },
  { name: "openapi", weight: 1, run: ({ client }) => client.openapi() },
  { name: "list sandboxes", weight: 8, run: ({ client }) => client.listSandboxes() },
  { name: "list snapshots", weight: 6, run: ({ client }) => client.listSnapshots() },
  { name: "lineage", weight: 2, run: ({ client }) => client.getLineage() },
  { name: "inspect", weight: 8, run: ({ client }, id) => client.getSandbox({ params: { id } }) },
  {
    name: "snapshot info",
    weight: 2,
    run: ({ client, tag }) => client.getSnapshotInfo({ params: { tag } }),
  },
  { name: "ping", weight: 10, run: ({ client }, id) => client.pingSandbox({ params: { id } }) },
  {
    name: "exec",
    weight: 6,
    run: ({ client }, id) => client.execSandbox({ params: { id }, body: { args: ["true"] } }),
  },
  {
    name: "exec with 64 KiB",
    weight: 2,
    run: ({ client }, id) =>
      client.execSandbox({ params: { id }, body: { args: ["cat"], stdin: text } }),
  },
  {
    name: "eval",
    weight: 8,
    run: ({ client }, id) => client.evalSandbox({ params: { id }, body: { code: "6 * 7" } }),
  },
  { name: "spawn and delete", weight: 0.5, run: churn },
  {
    name: "an unknown sandbox",
    weight: 4,
    run: ({ client }) =>
      refused(client.getSandbox({ params: { id: "sb-0" } }), "sandbox_not_found"),
  },
  {
    name: "a bad tag",
    weight: 4,
    run: ({ client }) => refused(client.deleteSnapshot({ params: { tag: "-no" } }), "invalid_tag"),
  },
  {
    name: "a wrong token",
    weight: 4,
    run: ({ stranger }) => refused(stranger.version(), "unauthorized"),
  },
];

const weights = calls.reduce((sum, { weight }) => sum + weight, 0);

/** A call by chance, as often as its weight says. */
export function anyCall(): Call {
  let at = Math.random() * weights;
  for (const call of calls) {
    at -= call.weight;
    if (at < 0) return call;
  }
  throw new RangeError("the weights have no sum");
}
