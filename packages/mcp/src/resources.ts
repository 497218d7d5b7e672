import { ForkdError } from "@forkd/api";
import type { Client } from "@forkd/sdk";
import { Snapshot } from "@forkd/sdk";
import type {
  ReadResourceResult,
  Resource,
  ResourceTemplate,
} from "@modelcontextprotocol/sdk/types.js";

const mimeType = "application/json";

/** Entries of one kind that a list of resources shows; the collections hold all. */
const listedMax = 200;

const collections: readonly Resource[] = [
  {
    uri: "forkd://snapshots",
    name: "snapshots",
    description: "Every snapshot that the daemon has",
    mimeType,
  },
  {
    uri: "forkd://sandboxes",
    name: "sandboxes",
    description: "Every sandbox that runs",
    mimeType,
  },
];

export const resourceTemplates: readonly ResourceTemplate[] = [
  {
    uriTemplate: "forkd://snapshots/{tag}",
    name: "snapshot",
    description: "One snapshot by its tag",
    mimeType,
  },
  {
    uriTemplate: "forkd://sandboxes/{id}",
    name: "sandbox",
    description: "One sandbox by its id",
    mimeType,
  },
];

/** The collections, and what is in them. Throws ForkdError. */
export async function listResources(client: Client, signal: AbortSignal): Promise<Resource[]> {
  const [snapshots, sandboxes] = await Promise.all([
    client.listSnapshots({ signal }),
    client.listSandboxes({ signal }),
  ]);
  const entry = (kind: string, name: string, description: string): Resource => ({
    uri: `forkd://${kind}/${name}`,
    name,
    description,
    mimeType,
  });
  return [
    ...collections,
    ...snapshots
      .slice(0, listedMax)
      .map(({ tag, status }) => entry("snapshots", tag, `a snapshot, ${status}`)),
    ...sandboxes
      .slice(0, listedMax)
      .map(({ id, snapshot_tag: tag }) => entry("sandboxes", id, `a sandbox forked from ${tag}`)),
  ];
}

/** Throws bad_request for an address that no resource has, and what the daemon refuses. */
export async function readResource(
  client: Client,
  uri: string,
  signal: AbortSignal,
): Promise<ReadResourceResult> {
  const value = await contentOf(client, uri, signal);
  return { contents: [{ uri, mimeType, text: JSON.stringify(value, null, 2) }] };
}

async function contentOf(client: Client, uri: string, signal: AbortSignal): Promise<unknown> {
  const [, kind, name] = /^forkd:\/\/(snapshots|sandboxes)(?:\/([^/?#]+))?$/.exec(uri) ?? [];
  if (kind === "snapshots") {
    return name === undefined
      ? await client.listSnapshots({ signal })
      : await Snapshot.get(name, { client, signal });
  }
  if (kind === "sandboxes") {
    return name === undefined
      ? await client.listSandboxes({ signal })
      : await client.getSandbox({ params: { id: name }, signal });
  }
  throw new ForkdError("bad_request", `${JSON.stringify(uri.slice(0, 200))} is no resource`, {
    hint: "list the resources first",
  });
}

/** Tags or ids that begin with `begun`, for a client that completes what its user types. */
export async function completeName(client: Client, template: string, begun: string) {
  const names = template.startsWith("forkd://snapshots/")
    ? (await client.listSnapshots()).map(({ tag }) => tag)
    : (await client.listSandboxes()).map(({ id }) => id);
  const fitting = names.filter((name) => name.startsWith(begun));
  return { values: fitting.slice(0, completionsMax), total: fitting.length };
}

/** The protocol's own bound. */
const completionsMax = 100;
