import assert from "node:assert/strict";
import { test } from "node:test";
import { branchRequestSchema, ForkdError, parseSandboxId, parseSnapshotTag } from "@forkd/api";
import { type OperationWatcher, watchService } from "@forkd/host/daemon/watched-service.ts";
import { askedLimits } from "@forkd/host/fork/asked-limits.ts";
import { FakeService } from "../../helpers/fake-service.ts";

/** A service whose work is written down. */
function watchedFake() {
  const service = new FakeService();
  const seen: string[] = [];
  const watcher: OperationWatcher = {
    begin: (operation) => {
      seen.push(`${operation} begins`);
      return {
        spawned: ({ info }) => seen.push(`child ${info.id}`),
        branched: ({ tag }) => seen.push(`branch ${tag}`),
        end: (outcome) => seen.push(`${operation} ${outcome}`),
      };
    },
  };
  return { service, seen, watched: watchService(service, [watcher]) };
}

const order = {
  tag: parseSnapshotTag("base"),
  count: 1,
  limits: askedLimits({}),
  minIsolation: null,
};

test("each operation is told from its begin to its end, and its result is unchanged", async () => {
  const { watched, seen } = watchedFake();
  const [child] = await watched.spawn(order);
  assert.ok(child !== undefined);
  const { id } = child.info;
  const sandbox = parseSandboxId(id);
  const result = await watched.exec(sandbox, {
    args: ["a", "b"],
    timeout_secs: 1,
    env: {},
    stdin: "",
  });
  assert.equal(result.stdout, "a b\n");
  await watched.branch(sandbox, branchRequestSchema.parse({}));
  await watched.kill(sandbox);
  assert.deepEqual(seen, [
    "spawn begins",
    `child ${id}`,
    "spawn ok",
    "exec begins",
    "exec ok",
    "branch begins",
    `branch branch-${id}`,
    "branch ok",
    "kill begins",
    "kill ok",
  ]);
});

test("a failure is told by its code, and thrown as it was", async () => {
  const { service, watched, seen } = watchedFake();
  const fault = new ForkdError("engine_failed", "for a test");
  service.fault = fault;
  await assert.rejects(watched.spawn(order), (error) => error === fault);
  assert.deepEqual(seen, ["spawn begins", "spawn engine_failed"]);
  service.fault = new TypeError("a bug");
  await assert.rejects(watched.spawn(order), TypeError);
  assert.equal(seen.at(-1), "spawn internal");
});

test("what is not watched is the service's own, with its own state", async () => {
  const { service, watched, seen } = watchedFake();
  service.reset();
  assert.deepEqual(await watched.listSnapshots(), await service.listSnapshots());
  assert.deepEqual(watched.listSandboxes(), []);
  assert.equal(String(watched), String(service));
  assert.deepEqual(seen, []);
});
