/** Events of a real daemon: what happens to sandboxes and snapshots, told as it happens. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { EventType } from "@forkd/api";
import { events, ForkdError, type ForkdEvent, Sandbox } from "@forkd/sdk";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";

const waitMs = 60_000;

describe("events", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("events", baked);
    daemon = await startDaemon(data.path);
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  /** The events up to and with the first of a type. */
  const until = async (last: EventType, after?: string): Promise<ForkdEvent[]> => {
    const seen: ForkdEvent[] = [];
    const signal = AbortSignal.timeout(waitMs);
    for await (const event of events(daemon.client, { after, signal })) {
      seen.push(event);
      if (event.type === last) break;
    }
    return seen;
  };
  const typesOf = (seen: readonly ForkdEvent[]): string[] => seen.map(({ type }) => type);

  test("a life is told in order, and again to who comes back", async () => {
    // An id of an earlier daemon: the answer begins with what is still known.
    const first = until("sandbox.ended", "00000000-1");
    const sandbox = await Sandbox.create({ snapshotTag: baked.tag, client: daemon.client });
    const checkpoint = await sandbox.branch({ mode: "diff" });
    await sandbox.kill();
    const seen = await first;
    const expected = ["sandbox.created", "sandbox.branched", "sandbox.ended"];
    const ofSandbox = seen.filter(({ sandbox_id }) => sandbox_id === sandbox.id);
    assert.deepEqual(typesOf(ofSandbox), expected);
    assert.equal(seen[0]?.type, "events.missed");
    assert.equal(seen.at(-1)?.reason, "killed");
    await checkpoint.delete();
    const more = await until("snapshot.removed", ofSandbox[0]?.id);
    assert.deepEqual(typesOf(more).slice(0, 2), typesOf(seen).slice(2, 4));
    const ofSnapshot = more.filter(({ snapshot_tag }) => snapshot_tag === checkpoint.info.tag);
    assert.equal(ofSnapshot.at(-1)?.type, "snapshot.removed");
    assert.ok(typesOf(ofSnapshot).includes("snapshot.ready"));
  });

  test("a filter is kept, and a wrong one refused", async () => {
    const { client } = daemon;
    const read = events(client, { types: ["sandbox.ended"], signal: AbortSignal.timeout(waitMs) });
    const next = read.next();
    const sandbox = await Sandbox.create({ snapshotTag: baked.tag, client });
    await sandbox.kill();
    const { value } = await next;
    assert.ok(value !== undefined);
    assert.deepEqual([value.type, value.sandbox_id], ["sandbox.ended", sandbox.id]);
    await read.return();
    const query = { types: "sandbox.born" };
    await assert.rejects(client.open("streamEvents", { params: {}, query }), (error: unknown) => {
      assert.ok(error instanceof ForkdError);
      return error.code === "bad_request";
    });
  });
});
