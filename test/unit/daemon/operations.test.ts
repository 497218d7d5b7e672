import assert from "node:assert/strict";
import { test } from "node:test";
import { type Attestation, ForkdError, parseSnapshotTag } from "@forkd/api";
import { noLimits } from "@forkd/host/fork/asked-limits.ts";
import type { OperationEntry } from "@forkd/host/fork/audit-log.ts";
import { Operations } from "@forkd/host/fork/operations.ts";
import { FakeService } from "../../helpers/fake-service.ts";
import { TestServer } from "../../helpers/test-server.ts";

const identity: Attestation = {
  generation: 1,
  entropy_bytes: 64,
  crng_reseeded: true,
  clock_skew_before_ms: -86_400_000,
  clock_skew_after_ms: 0.1,
  hostname: "sb-1",
  machine_id: "a".repeat(32),
  mac: null,
  ip: null,
  reseeded: ["random"],
  reseed_pending: false,
  hooks: [{ name: "10-app", ok: false, detail: "exit code 1: password=hunter2" }],
};

test("every sandbox that is made or ended has an entry of its own", async () => {
  const token = "correct-horse-battery-staple";
  const server = new TestServer({ token });
  const headers = { authorization: `Bearer ${token}`, "x-request-id": "r-1" };
  const body = { snapshot_tag: "base", n: 3 };
  const ids = (await server.call("createSandboxes", { body, headers }))
    .json()
    .map(({ id }: { id: string }) => id);
  await server.call("deleteSandbox", { params: { id: ids[1] }, headers });
  const who = { principal: "token", remote: "127.0.0.1", request_id: "r-1", outcome: "ok" };
  const made = ids.map((id: string) => ({
    ...who,
    operation: "spawn",
    snapshot_tag: "base",
    sandbox_id: id,
    identity: null,
  }));
  const entries = server.operations.map(({ ts, ...rest }) => {
    assert.match(ts, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    return rest;
  });
  assert.deepEqual(entries, [...made, { ...who, operation: "kill", sandbox_id: ids[1] }]);
  assert.equal(server.audited.length, 2);
});

test("an operation that fails is audited with the code of its failure", async () => {
  const server = new TestServer();
  server.service.fault = new ForkdError("identity_failed", "no");
  await server.call("createSandboxes", { body: { snapshot_tag: "base", n: 2 } });
  await server.call("deleteSandbox", { params: { id: "sb-unknown" } });
  assert.deepEqual(
    server.operations.map(({ operation, outcome, sandbox_id, principal }) => [
      operation,
      outcome,
      sandbox_id,
      principal,
    ]),
    [
      ["spawn", "identity_failed", undefined, "local"],
      ["kill", "sandbox_not_found", "sb-unknown", "local"],
    ],
  );
});

test("the identity is audited, but not what hooks printed", async () => {
  const service = new FakeService();
  const entries: OperationEntry[] = [];
  const sink = {
    write: (entry: object) => {
      // Only operations are written here.
      entries.push(entry as OperationEntry);
    },
  };
  const spawn: FakeService["spawn"] = async (request) =>
    (await service.spawn(request)).map((child) => ({
      ...child,
      info: { ...child.info, identity },
    }));
  const operations = new Operations(
    { spawn, kill: (id) => service.kill(id), branch: (id) => service.branch(id) },
    sink,
  );
  const actor = { principal: "cli", remote: "uid:0", requestId: null } as const;
  await operations.as(actor).spawn({
    tag: parseSnapshotTag("base"),
    count: 1,
    limits: noLimits,
    minIsolation: null,
  });
  assert.deepEqual(entries[0]?.identity, { ...identity, hooks: [{ name: "10-app", ok: false }] });
  assert.ok(!JSON.stringify(entries).includes("hunter2"));
});
