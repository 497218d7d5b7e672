import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ForkdError, limits, type Route, routes } from "@forkd/api";
import { noLimits } from "@forkd/host/fork/asked-limits.ts";
import { problemOf, TestServer } from "../../helpers/test-server.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

async function spawnOne(server: TestServer): Promise<string> {
  const response = await server.call("createSandboxes", { body: { snapshot_tag: "base" } });
  return response.json()[0].id;
}

test("health answers with and without its slash", async () => {
  const server = new TestServer();
  assert.deepEqual((await server.call("health")).json(), { ok: true });
  const slashed = await server.inject({ url: "/healthz/" });
  assert.deepEqual([slashed.statusCode, slashed.json()], [200, { ok: true }]);
});

test("version and the OpenAPI document tell the version", async () => {
  const server = new TestServer();
  assert.deepEqual((await server.call("version")).json(), { version: "1.2.3", api: "v1" });
  const document = (await server.call("openapi")).json();
  assert.equal(document.info.version, "1.2.3");
  for (const { path, method } of Object.values<Route>(routes)) {
    assert.ok(document.paths[path][method.toLowerCase()], `${method} ${path}`);
  }
});

test("metrics have upstream's names", async () => {
  const server = new TestServer();
  await spawnOne(server);
  const response = await server.call("metrics");
  assert.match(String(response.headers["content-type"]), /^text\/plain; version=0\.0\.4/);
  assert.match(response.body, /^forkd_build_info\{version="1\.2\.3"\} 1$/m);
  assert.match(response.body, /^forkd_snapshots_total 1$/m);
  assert.match(response.body, /^forkd_sandboxes_active 1$/m);
  assert.match(response.body, /^forkd_branches_in_flight 0$/m);
  assert.match(response.body, /^forkd_branch_concurrency_cap 4$/m);
  assert.match(response.body, /^forkd_http_answers_total\{status="201"\} 1$/m);
  assert.match(response.body, /^forkd_event_loop_lag_seconds\{quantile="0\.99"\} \S+$/m);
  assert.match(response.body, /^forkd_event_loop_lag_max_seconds \S+$/m);
});

test("a sandbox lives from spawn to delete", async () => {
  const server = new TestServer();
  const spawned = await server.call("createSandboxes", { body: { snapshot_tag: "base", n: 3 } });
  assert.equal(spawned.json().length, 3);
  assert.equal(spawned.json()[0].netns, null);
  const { id } = spawned.json()[1];
  assert.equal((await server.call("getSandbox", { params: { id } })).json().id, id);
  assert.equal((await server.call("listSandboxes")).json().length, 3);
  for (const time of ["first", "second"]) {
    assert.equal((await server.call("deleteSandbox", { params: { id } })).statusCode, 204, time);
  }
  const unknown = await server.call("deleteSandbox", { params: { id: "sb-0-0" } });
  assert.equal(unknown.statusCode, 404);
  assert.match(problemOf(unknown).error, /not found$/);
});

test("an end is told: of a deleted sandbox when asked, of another one always", async () => {
  const server = new TestServer();
  const deleted = await spawnOne(server);
  const crashed = await spawnOne(server);
  await server.call("deleteSandbox", { params: { id: deleted } });
  const info = await server.service.getSandbox(crashed);
  server.service.endAs(info, "engine_crash");
  const get = (id: string, query = "") => server.inject({ url: `/v1/sandboxes/${id}${query}` });
  const gone = await get(deleted);
  assert.equal(problemOf(gone).code, "sandbox_not_found");
  assert.match(problemOf(gone).error, /not found: it ended at \S+ \(killed: .+\)$/);
  assert.equal((await get(deleted, "?ended=true")).json().end.reason, "killed");
  assert.equal((await get(crashed)).json().end.reason, "engine_crash");
  assert.deepEqual((await server.inject({ url: "/v1/sandboxes" })).json(), []);
  const all = (await server.inject({ url: "/v1/sandboxes?ended=1&unknown=x" })).json();
  assert.deepEqual(
    all.map(({ id, state }: { id: string; state: string }) => [id, state]),
    [
      [crashed, "ended"],
      [deleted, "ended"],
    ],
  );
  const bad = await server.inject({ url: "/v1/sandboxes?ended=maybe" });
  assert.deepEqual([bad.statusCode, problemOf(bad).code], [400, "bad_request"]);
});

test("a log is plain text, of as many lines as are asked for", async () => {
  const server = new TestServer();
  const id = await spawnOne(server);
  const get = (query: string) => server.inject({ url: `/v1/sandboxes/${id}/logs${query}` });
  const all = await server.call("getSandboxLogs", { params: { id } });
  assert.equal(all.headers["content-type"], "text/plain; charset=utf-8");
  assert.equal(all.body, `the last all of ${id}\n`);
  assert.equal((await get("?lines=2")).body, `the last 2 of ${id}\n`);
  for (const bad of ["0", "-1", "1.5", "x", "", String(limits.logLinesMax + 1)]) {
    assert.equal(problemOf(await get(`?lines=${bad}`)).code, "bad_request", bad);
  }
  const none = await server.call("getSandboxLogs", { params: { id: "sb-none" } });
  assert.equal(problemOf(none).code, "sandbox_not_found");
});

test("exec, eval and ping reach the guest", async () => {
  const server = new TestServer();
  const params = { id: await spawnOne(server) };
  const exec = await server.call("execSandbox", { params, body: { args: ["echo", "a"] } });
  assert.equal(exec.json().stdout, "echo a\n");
  const evaluated = await server.call("evalSandbox", { params, body: { code: "1 + 1" } });
  assert.equal(evaluated.json().result, "1 + 1");
  assert.equal((await server.call("pingSandbox", { params })).json().pong, true);
});

test("a ping needs no body and bears an empty one of any type", async () => {
  const server = new TestServer();
  const url = `/v1/sandboxes/${await spawnOne(server)}/ping`;
  for (const type of [undefined, "application/json", "application/x-www-form-urlencoded"]) {
    const headers = { host: "localhost", ...(type === undefined ? {} : { "content-type": type }) };
    const bare = await server.inject({ method: "POST", url, headers });
    assert.equal(bare.statusCode, 200, `no body, ${type}`);
    const empty = await server.inject({ method: "POST", url, headers, payload: "" });
    assert.equal(empty.statusCode, 200, `empty body, ${type}`);
  }
});

test("a delete bears the content type that some clients send with everything", async () => {
  const server = new TestServer();
  const headers = { "content-type": "application/json" };
  const response = await server.call("deleteSnapshot", { params: { tag: "base" }, headers });
  assert.equal(response.statusCode, 204);
});

const spawnRefusals: readonly [string, unknown, string][] = [
  ["n of 0", { snapshot_tag: "base", n: 0 }, "invalid_count"],
  ["n over the limit", { snapshot_tag: "base", n: 1001 }, "invalid_count"],
  ["a count before a tag", { snapshot_tag: "../x", n: 0 }, "invalid_count"],
  ["a path as tag", { snapshot_tag: "../x" }, "invalid_tag"],
  ["an empty tag", { snapshot_tag: "" }, "invalid_tag"],
  ["a tag before the rest", { snapshot_tag: "a/b", memory_limit_mib: 0 }, "invalid_tag"],
  ["an unknown tag", { snapshot_tag: "nope" }, "snapshot_not_found"],
  ["no tag", { n: 1 }, "bad_request"],
  ["a count in words", { snapshot_tag: "base", n: "two" }, "bad_request"],
  ["half a child", { snapshot_tag: "base", n: 1.5 }, "bad_request"],
  ["no memory", { snapshot_tag: "base", memory_limit_mib: 0 }, "bad_request"],
  ["less time than the kernel can give", { snapshot_tag: "base", cpu_limit: 0.001 }, "bad_request"],
  ["too few threads for a VMM", { snapshot_tag: "base", pids_limit: 3 }, "bad_request"],
  ["a list as body", [], "bad_request"],
];

for (const [what, body, code] of spawnRefusals) {
  test(`a spawn refuses ${what}`, async () => {
    const server = new TestServer();
    const response = await server.call("createSandboxes", { body });
    assert.equal(problemOf(response).code, code);
    assert.equal(server.service.sandboxes.size, 0);
  });
}

test("unknown fields are ignored and defaults filled in", async () => {
  const server = new TestServer();
  const body = { snapshot_tag: "base", surprise: { deep: [1] } };
  await server.call("createSandboxes", { body });
  const [{ signal, ...request } = assert.fail()] = server.service.spawnRequests;
  assert.equal(signal?.aborted, false);
  assert.deepEqual(request, { tag: "base", count: 1, limits: noLimits, minIsolation: null });
});

test("a least scratch disk reaches the service, and one out of bounds does not", async () => {
  const server = new TestServer();
  const spawn = (scratch_mib: number) =>
    server.call("createSandboxes", { body: { snapshot_tag: "base", scratch_mib } });
  await spawn(limits.scratchMinMib);
  assert.equal(server.service.spawnRequests[0]?.scratchMib, limits.scratchMinMib);
  for (const mib of [limits.scratchMinMib - 1, limits.scratchMaxMib + 1, 64.5]) {
    assert.equal(problemOf(await spawn(mib)).code, "bad_request");
  }
  assert.equal(server.service.spawnRequests.length, 1);
});

test("a failed spawn keeps upstream's words, and only for our faults", async () => {
  const server = new TestServer();
  server.service.fault = new ForkdError("engine_failed", "no memory", { hint: "add some" });
  const ours = await server.call("createSandboxes", { body: { snapshot_tag: "base" } });
  assert.deepEqual(problemOf(ours), {
    error: "restore_many: no memory",
    code: "engine_failed",
    hint: "add some",
  });
  server.service.fault = new ForkdError("snapshot_not_ready", "still being written");
  const theirs = await server.call("createSandboxes", { body: { snapshot_tag: "base" } });
  assert.equal(problemOf(theirs).error, "still being written");
});

test("a snapshot is made from two files of the host, and from nothing else", async () => {
  const server = new TestServer();
  await using tmp = await makeTmpDir("daemon-routes");
  const dir = tmp.path;
  const [kernel, rootfs] = [join(dir, "kernel"), join(dir, "rootfs")];
  await writeFile(kernel, "k");
  await writeFile(rootfs, "r");
  const made = await server.call("createSnapshot", { body: { tag: "t", kernel, rootfs } });
  assert.equal(made.json().tag, "t");
  assert.match(server.service.bakeRequests[0]?.image.sha256 ?? "", /^[0-9a-f]{64}$/);
  const wrong = [join(dir, "none"), dir, "/dev/zero", "relative", `${kernel}\0`];
  for (const path of wrong) {
    const refused = await server.call("createSnapshot", {
      body: { tag: "u", kernel: path, rootfs },
    });
    assert.equal(problemOf(refused).code, "bad_request", path);
  }
  const slow = { tag: "u", kernel, rootfs, boot_wait_secs: 61 };
  assert.equal((await server.call("createSnapshot", { body: slow })).statusCode, 400);
  assert.equal(server.service.bakeRequests.length, 1);
});

test("snapshots are listed and deleted", async () => {
  const server = new TestServer();
  assert.equal((await server.call("listSnapshots")).json()[0].tag, "base");
  await server.call("deleteSnapshot", { params: { tag: "base" } });
  const gone = await server.call("deleteSnapshot", { params: { tag: "base" } });
  assert.equal(problemOf(gone).error, "snapshot 'base' not found");
});

test("a removal says what happens to children, and not two things at once", async () => {
  const server = new TestServer();
  const remove = (query: string) =>
    server.inject({ method: "DELETE", url: `/v1/snapshots/base?${query}` });
  assert.equal(problemOf(await remove("cascade=true&force=true")).code, "bad_request");
  assert.equal(problemOf(await remove("cascade=perhaps")).code, "bad_request");
  assert.deepEqual(server.service.removals, []);
  assert.equal((await remove("cascade=true")).statusCode, 204);
  server.service.reset();
  assert.equal((await remove("force=true")).statusCode, 204);
  server.service.reset();
  assert.equal((await remove("")).statusCode, 204);
  assert.deepEqual(server.service.removals, ["cascade", "orphan", "refuse"]);
});

test("a snapshot's chain is told and compacted", async () => {
  const server = new TestServer();
  const params = { tag: "base" };
  assert.equal((await server.call("getSnapshotInfo", { params })).json().chain_depth, 0);
  const unknown = await server.call("getSnapshotInfo", { params: { tag: "nope" } });
  assert.equal(unknown.statusCode, 404);
  const same = await server.call("compactSnapshot", { params, body: { to: "base" } });
  assert.equal(problemOf(same).code, "bad_request");
  const hostile = await server.call("compactSnapshot", { params, body: { to: "../x" } });
  assert.equal(problemOf(hostile).code, "invalid_tag");
  const made = await server.call("compactSnapshot", { params, body: { to: "flat" } });
  assert.equal(made.statusCode, 200);
  assert.equal(made.json().branched_from, "compact:base");
});

test("the lineage has what the lists have", async () => {
  const server = new TestServer();
  const id = await spawnOne(server);
  const { nodes } = (await server.call("getLineage")).json();
  assert.deepEqual(
    nodes.map(({ name }: { name: string }) => name),
    ["base", id],
  );
});

for (const hostile of ["../../etc", "a/b", "%00", "x".repeat(5000), "a b", "-x"]) {
  test(`an id or tag like ${hostile.slice(0, 20)} never reaches the service`, async () => {
    const server = new TestServer();
    const id = await server.call("getSandbox", { params: { id: hostile } });
    assert.match(problemOf(id).code, /^(invalid_id|sandbox_not_found)$/);
    if (hostile === "-x") return;
    const tag = await server.call("deleteSnapshot", { params: { tag: hostile } });
    assert.equal(problemOf(tag).code, "invalid_tag");
  });
}

test("bodies are bounded", async () => {
  const server = new TestServer();
  const params = { id: await spawnOne(server) };
  const large = { args: ["cat"], stdin: "x".repeat(limits.requestBodyBytesMax) };
  const refused = await server.call("execSandbox", { params, body: large });
  assert.equal(problemOf(refused).code, "payload_too_large");
  const many = { args: Array.from({ length: limits.execArgsMax + 1 }, () => "a") };
  assert.equal((await server.call("execSandbox", { params, body: many })).statusCode, 400);
  const none = { args: ["true"], timeout_secs: 0 };
  assert.equal((await server.call("execSandbox", { params, body: none })).statusCode, 400);
  const noise = randomBytes(64).toString("base64");
  const wrong = await server.inject({
    method: "POST",
    url: `/v1/sandboxes/${params.id}/exec`,
    headers: { host: "localhost", "content-type": "text/plain" },
    payload: noise,
  });
  assert.equal(problemOf(wrong).code, "unsupported_media_type");
});
