/** The check of answers against the OpenAPI document must see what is wrong with them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError, openApiDocument } from "@forkd/api";
import { Contract, type SeenAnswer } from "../../helpers/contract.ts";

const contract = new Contract(JSON.parse(JSON.stringify(openApiDocument("1.2.3"))));
const problem = JSON.stringify(new ForkdError("sandbox_not_found", "not found").toProblem());
const json = { contentType: "application/json; charset=utf-8" };
const version: SeenAnswer = {
  ...{ method: "GET", path: "/version", status: 200, ...json },
  text: '{"version":"1","api":"v1"}',
};

test("what the document allows passes", () => {
  const before = contract.checked;
  const one = { method: "GET", path: "/v1/sandboxes/sb-1?ended=true", status: 404, ...json };
  for (const answer of [
    version,
    { ...one, text: problem },
    { ...one, method: "DELETE", status: 204, contentType: "", text: "" },
    { ...version, path: "/metrics", contentType: "text/plain; version=0.0.4", text: "a 1\n" },
    { ...one, path: "/no/such/path", text: problem },
    { ...version, method: "POST", status: 405, text: problem },
  ]) {
    contract.check(answer);
  }
  assert.equal(contract.checked - before, 6);
});

const wrong: Record<string, Partial<SeenAnswer>> = {
  "a field is missing": { text: '{"version":"1"}' },
  "a field has another type": { text: '{"version":1,"api":"v1"}' },
  "a field is in no document": { text: '{"version":"1","api":"v1","more":1}' },
  "the status is in no document": { status: 418 },
  "the type is another": { contentType: "text/html" },
  "the path is in no document": { path: "/nowhere" },
  "an empty answer is not empty": { method: "DELETE", path: "/v1/sandboxes/x", status: 204 },
  "a list's entry is wrong": { path: "/v1/sandboxes", text: '[{"id":"x"}]' },
  "a failure has no code": { status: 401, text: '{"error":"x","hint":"y"}' },
};

for (const [name, part] of Object.entries(wrong)) {
  test(`it is seen when ${name}`, () => {
    assert.throws(() => contract.check({ ...version, ...part }), assert.AssertionError);
  });
}
