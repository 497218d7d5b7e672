import assert from "node:assert/strict";
import { test } from "node:test";
import {
  errorTable,
  openApiDocument,
  openApiSchema,
  type Route,
  routeErrors,
  routes,
} from "@forkd/api";

const document = JSON.parse(JSON.stringify(openApiDocument("1.2.3")));
const rows: readonly [string, Route][] = Object.entries(routes);

test("the document is what its own route promises", () => {
  openApiSchema.parse(document);
});

test("every route is in the document with all its answers", () => {
  for (const [name, route] of rows) {
    const operation = document.paths[route.path][route.method.toLowerCase()];
    assert.equal(operation.operationId, name);
    assert.equal(operation.requestBody !== undefined, route.request !== null, name);
    const statuses = routeErrors(route).map((code) => errorTable[code].status);
    const begun = "mayBeWriting" in route.success ? [202] : [];
    const part = "mayBePartial" in route.success ? [206] : [];
    const expected = new Set([route.success.status, ...begun, ...part, ...statuses].map(String));
    assert.deepEqual(new Set(Object.keys(operation.responses)), expected, name);
  }
  const count = Object.values<object>(document.paths).flatMap((path) => Object.keys(path)).length;
  assert.equal(count, rows.length);
});

test("parameters of path and query are declared", () => {
  for (const [, route] of rows) {
    const operation = document.paths[route.path][route.method.toLowerCase()];
    const parameters: readonly { name: string; in: string }[] = operation.parameters ?? [];
    const named = (where: string) => parameters.filter((p) => p.in === where).map((p) => p.name);
    assert.deepEqual(named("path"), route.path.match(/(?<=\{)\w+/g) ?? []);
    assert.deepEqual(named("query"), "query" in route ? Object.keys(route.query.shape) : []);
  }
});

test("every reference of the document resolves", () => {
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)];
  assert.ok(references.length > rows.length);
  for (const [, reference = ""] of references) {
    const name = reference.replace("#/components/schemas/", "");
    assert.ok(document.components.schemas[name], reference);
  }
});

test("only what is open goes without a token", () => {
  for (const [name, route] of rows) {
    const { security } = document.paths[route.path][route.method.toLowerCase()];
    assert.deepEqual(security, route.open === true ? [] : undefined, name);
  }
});

test("objects stay open, defaults optional, bounds told", () => {
  const { CreateSandbox, SandboxInfo } = document.components.schemas;
  assert.deepEqual(CreateSandbox.required, ["snapshot_tag"]);
  assert.deepEqual(
    [CreateSandbox.properties.n.minimum, CreateSandbox.properties.n.maximum],
    [1, 1000],
  );
  assert.equal(SandboxInfo.additionalProperties, undefined);
});
