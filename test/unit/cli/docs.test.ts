import assert from "node:assert/strict";
import { test } from "node:test";
import { renderCliDocs } from "@forkd/host/cli/docs.ts";

const docs = renderCliDocs();

test("every verb is documented once", () => {
  const verbs =
    "quickstart from-image snapshot fork run images snapshot-diff rmi spawn ls kill branch exec eval " +
    "ping where version";
  for (const verb of [...verbs.split(" "), "kernel install", "kernel ls"]) {
    assert.equal(docs.split(`\n## forkd ${verb}\n`).length, 2, verb);
  }
});

test("what does not work yet is not advertised", () => {
  for (const flag of ["--live-fork", "--hugepages", "--tap", "--volume"]) {
    assert.ok(!docs.includes(flag), flag);
  }
});

test("lines of text fit in 100 columns", () => {
  const long = docs.split("\n").filter((line) => line.length > 100 && !line.startsWith("|"));
  assert.deepEqual(long, []);
});
