import assert from "node:assert/strict";
import { isIPv4, isIPv6 } from "node:net";
import { describe, test } from "node:test";
import { childNet, childNumber, childrenMax } from "@forkd/host/linux/net/plan.ts";

const all = Array.from({ length: childrenMax }, (_, at) => childNet(at + 1));

describe("the layout of a thousand children", () => {
  test("no two have a name or an address in common, and all are valid", () => {
    for (const field of ["name", "hostLink", "ip4", "guest4", "ip6", "guest6", "mac"] as const) {
      assert.equal(new Set(all.map((child) => child[field])).size, childrenMax, field);
    }
    for (const child of all) {
      assert.ok(isIPv4(child.ip4) && isIPv4(child.guest4), child.name);
      assert.ok(isIPv6(child.ip6) && isIPv6(child.guest6), child.name);
      assert.match(child.mac, /^02(:[0-9a-f]{2}){5}$/);
      // IFNAMSIZ is 16 with the final zero.
      assert.ok(child.hostLink.length <= 15, child.hostLink);
    }
  });

  test("the addresses are upstream's where upstream's are right", () => {
    assert.equal(all[0]?.ip4, "10.43.0.2");
    assert.equal(all[253]?.ip4, "10.43.0.255");
    assert.equal(all[254]?.ip4, "10.43.1.0");
    assert.equal(all[999]?.ip4, "10.43.3.233");
  });

  test("no child has an address of the bridge or of the tap", () => {
    const taken = new Set(["10.43.0.1", "10.42.0.1", "10.42.0.2", "02:fd:43:00:00:01"]);
    for (const { ip4, guest4, mac } of all) {
      assert.ok(![ip4, guest4, mac].some((address) => taken.has(address)));
    }
  });

  test("a number comes back from a name, and from nothing else", () => {
    for (const { name, number } of all) assert.equal(childNumber(name), number);
    for (const name of ["forkd-child-0", "forkd-child-01", "forkd-child-1001", "forkd-child-1x"]) {
      assert.equal(childNumber(name), undefined, name);
    }
  });
});
