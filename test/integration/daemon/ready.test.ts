/** How the SDK waits for a snapshot, over a real connection to a daemon without machines. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Snapshot } from "@forkd/sdk";
import { eventually } from "../../helpers/eventually.ts";
import { listenForTest, TestServer } from "../../helpers/test-server.ts";

test("a snapshot that is written is told of, not asked for again and again", async (context) => {
  const server = new TestServer();
  const { snapshots, events } = server.service;
  const port = await listenForTest(server, context);
  const base = snapshots.get("base") ?? assert.fail();
  snapshots.set("base", { ...base, status: "writing" });
  const paths: string[] = [];
  const counting: typeof fetch = (url, init) => {
    paths.push(new URL(String(url)).pathname);
    return fetch(url, init);
  };
  const at = { url: `http://127.0.0.1:${port}`, fetch: counting };
  const ready = (await Snapshot.get("base", at)).ready();
  const look = "/v1/snapshots";
  const asked = [look, look, "/v1/events", look];
  await eventually(() => assert.deepEqual(paths, asked));
  // Who asks again and again would have done so by now.
  await sleep(200);
  events.append("snapshot.ready", { snapshot_tag: "other" });
  assert.deepEqual(paths, asked);
  snapshots.set("base", base);
  events.append("snapshot.ready", { snapshot_tag: "base" });
  assert.equal((await ready).status, "ready");
  assert.deepEqual(paths, [...asked, look]);
});
