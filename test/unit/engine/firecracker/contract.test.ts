import assert from "node:assert/strict";
import { test } from "node:test";
import { endpoints, pathOf } from "@forkd/host/engine/firecracker/contract.ts";
import { z } from "zod";
import { type Definition, findSpec, Swagger } from "../../../helpers/swagger.ts";

const path = findSpec();
const skip =
  path === undefined &&
  "needs upstream's description of the API (FORKD_FIRECRACKER_SPEC=FILE.yaml)";

/** A schema of ours as JSON Schema: the part of it that is compared. */
interface Ours {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Ours>>;
}

/** Where ours could make a request that the description does not allow. */
function differences(ours: Ours, theirs: Definition, at: string): string[] {
  const members = theirs.properties;
  const missing = theirs.required.filter((name) => !ours.required?.includes(name));
  const more = (ours.enum ?? []).filter((value) => !theirs.values.includes(value));
  const inner = Object.entries(ours.properties ?? {}).flatMap(([name, member]) => {
    const known = members.get(name);
    if (known === undefined) return [`${at}.${name} is not described`];
    return differences(member, known, `${at}.${name}`);
  });
  return [
    ...missing.map((name) => `${at}.${name} is required`),
    ...more.map((value) => `${at} cannot be ${value}`),
    ...inner,
  ];
}

test("every request that forkd can make is in upstream's description", { skip }, () => {
  const spec = new Swagger(path ?? assert.fail());
  let bodies = 0;
  for (const [name, endpoint] of Object.entries(endpoints)) {
    const theirs = spec.body(endpoint.method, endpoint.path);
    assert.notEqual(theirs, undefined, `${endpoint.method} ${endpoint.path}`);
    assert.equal(theirs === null, endpoint.body === null, name);
    if (theirs === null || theirs === undefined || endpoint.body === null) continue;
    // Zod's own JSON Schema, of which only the named members are read.
    const ours = z.toJSONSchema(endpoint.body) as Ours;
    assert.deepEqual(differences(ours, theirs, name), []);
    bodies += 1;
  }
  assert.ok(bodies >= 10, `${bodies} bodies were compared`);
});

test("the comparison itself finds what is wrong", { skip }, () => {
  const spec = new Swagger(path ?? assert.fail());
  const load = (body: object) => spec.problems({ method: "PUT", path: "/snapshot/load", body });
  assert.deepEqual(load({ snapshot_path: "a" }), []);
  assert.deepEqual(load({}), ["PUT /snapshot/load.snapshot_path is missing"]);
  assert.deepEqual(load({ snapshot_path: 1 }), ["PUT /snapshot/load.snapshot_path is no string"]);
  assert.deepEqual(load({ snapshot_path: "a", shared: true }), [
    "PUT /snapshot/load.shared is not described",
  ]);
  const backend = { backend_type: "Memfd", backend_path: "x" };
  assert.match(load({ snapshot_path: "a", mem_backend: backend }).join(), /not one of File, Uffd/);
  const vm = { method: "PATCH", path: "/vm", body: { state: "Stopped" } };
  assert.match(spec.problems(vm).join(), /not one of Paused, Resumed/);
  const cpus = { vcpu_count: 33, mem_size_mib: 1 };
  const machine = { method: "PUT", path: "/machine-config", body: cpus };
  assert.match(spec.problems(machine).join(), /out of range/);
  assert.match(spec.problems({ method: "PUT", path: "/uffd/wp" }).join(), /not described/);
});

test("the id in a path is that of the body", () => {
  assert.equal(pathOf("drive", { drive_id: "root" }), "/drives/root");
  assert.equal(pathOf("drive", { drive_id: "a/b" }), "/drives/a%2Fb");
  assert.equal(pathOf("vm", { state: "Paused" }), "/vm");
});
