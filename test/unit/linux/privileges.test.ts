import assert from "node:assert/strict";
import { test } from "node:test";
import { parseCapabilities } from "@forkd/host/linux/privileges.ts";

const statusWith = (mask: string): string =>
  `Name:\tnode\nCapPrm:\t0\nCapEff:\t${mask}\nSeccomp:\t0\n`;

test("the capabilities that a process has are read bit by bit", () => {
  const read = (mask: string): string[] => [...parseCapabilities(statusWith(mask))];
  assert.deepEqual(read("000001ffffffffff"), ["net_admin", "sys_admin", "sys_nice"]);
  assert.deepEqual(read("0000000000001000"), ["net_admin"]);
  assert.deepEqual(read("0000000000200000"), ["sys_admin"]);
  // What a container's root has: Docker's default set.
  assert.deepEqual(read("00000000a80425fb"), []);
  assert.deepEqual(read("0000000000000000"), []);
});

test("what root may have at all is another set than what a process has", () => {
  const status = "CapEff:\t0\nCapBnd:\t0000000000201000\n";
  assert.deepEqual([...parseCapabilities(status)], []);
  assert.deepEqual([...parseCapabilities(status, "CapBnd")], ["net_admin", "sys_admin"]);
});

test("a status that does not say so grants nothing", () => {
  assert.deepEqual([...parseCapabilities("Name:\tnode\n")], []);
  assert.deepEqual([...parseCapabilities(statusWith("all of them"))], []);
});
