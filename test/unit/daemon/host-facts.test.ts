import assert from "node:assert/strict";
import { test } from "node:test";
import { TestServer } from "../../helpers/test-server.ts";

test("the daemon tells where it keeps what it has", async () => {
  const server = new TestServer();
  assert.deepEqual((await server.call("hostFacts")).json(), {
    version: "1.2.3",
    pid: process.pid,
    data_dir: "/data",
    snapshots_dir: "/data/snapshots",
    snapshots_free_bytes: 3 * 1024 ** 3,
    snapshots_total_bytes: 9 * 1024 ** 3,
  });
});
