import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type EgressInput, egressSchema } from "@forkd/api";
import { childRules } from "@forkd/host/linux/net/child-rules.ts";
import { childNet } from "@forkd/host/linux/net/plan.ts";
import { reachOf } from "@forkd/host/linux/net/protected.ts";

const child = childNet(7);

function rulesOf(egress: EgressInput): string {
  const tenant = { mac: "02:00:00:00:00:01", zone: 3, egress: egressSchema.parse(egress) };
  return childRules(child, tenant);
}

/** The lines of the chain that decides where a guest's packets may go. */
function egressOf(egress: EgressInput): string[] {
  const text = /chain egress \{\n([\s\S]*?)\n {2}\}/.exec(rulesOf(egress))?.[1] ?? assert.fail();
  return text.split("\n").map((line) => line.trim());
}

const placeOf = (lines: readonly string[], part: string): number => {
  const place = lines.findIndex((line) => line.includes(part));
  assert.notEqual(place, -1, `${part} in:\n${lines.join("\n")}`);
  return place;
};

describe("the rules of a child's namespace", () => {
  test("without a tenant there is no rule that accepts", () => {
    assert.doesNotMatch(childRules(child, null), /accept|snat|dnat/);
  });

  test("the table is replaced as a whole", () => {
    assert.match(rulesOf({}), /^table inet forkd\ndelete table inet forkd\ntable inet forkd \{\n/);
  });

  test("a policy that names nothing accepts nothing that a guest sends out", () => {
    assert.ok(egressOf({}).every((line) => !line.includes("accept")));
    assert.match(egressOf({}).at(-1) ?? "", /^reject/);
    assert.equal(egressOf({ default: "allow" }).at(-1), "accept");
  });

  test("deny comes before allow, protected before public, metadata before all", () => {
    const lines = egressOf({
      default: "allow",
      deny: [{ cidr: "198.51.100.0/24" }],
      allow: [{ cidr: "0.0.0.0/0" }, { cidr: "10.1.0.0/16" }, { cidr: "169.254.169.254" }],
    });
    const order = [
      "ip daddr 198.51.100.0/24 reject",
      "ip daddr 169.254.169.254 accept",
      "ip daddr { 169.254.169.254 } reject",
      "ip daddr 10.1.0.0/16 accept",
      "10.0.0.0/8",
      "ip daddr 0.0.0.0/0 accept",
    ].map((part) => placeOf(lines, part));
    assert.deepEqual(
      order,
      order.toSorted((a, b) => a - b),
    );
  });

  test("no rule opens the way to other children or to the relay of name servers", () => {
    const lines = egressOf({ dns: true, allow: [{ cidr: "10.43.0.1" }, { cidr: "fc00::/7" }] });
    const own = placeOf(lines, "ip daddr { 10.43.0.0/16, 10.42.0.0/16 } reject");
    assert.ok(own < placeOf(lines, "ip daddr 10.43.0.1 accept"));
    const own6 = placeOf(lines, "ip6 daddr { fd43:666f:726b::/64, fd42:666f:726b::/64 } reject");
    assert.ok(own6 < placeOf(lines, "ip6 daddr fc00::/7 accept"));
    assert.ok(placeOf(lines, "ct mark 0x35 accept") < own);
  });

  test("ports that overlap are joined, since nftables refuses them otherwise", () => {
    const rule = { cidr: "192.0.2.1", ports: [80, "79-81", 443, "82-90", "443-443"] };
    placeOf(
      egressOf({ allow: [rule] }),
      "meta l4proto { tcp, udp } th dport { 79-90, 443 } accept",
    );
  });

  test("name servers are for open policies, or for those that ask", () => {
    const redirects = (egress: EgressInput): boolean => rulesOf(egress).includes("dnat ip to");
    assert.ok(redirects({ default: "allow" }) && redirects({ dns: true }));
    assert.ok(!redirects({}) && !redirects({ default: "allow", dns: false }));
    assert.ok(!redirects({ allow: [{ cidr: "192.0.2.1" }] }));
  });

  test("a rule opens what is protected only when it lies within that", () => {
    const reach = (cidr: string) => reachOf({ cidr, ports: [], protocol: "any" });
    for (const cidr of ["0.0.0.0/0", "8.0.0.0/5", "203.0.113.0/24", "2001:db8::/32", "::/0"]) {
      assert.equal(reach(cidr), "public", cidr);
    }
    for (const cidr of ["10.0.0.0/8", "192.168.3.4", "169.254.0.0/16", "fd12::/16", "fe80::1"]) {
      assert.equal(reach(cidr), "protected", cidr);
    }
    for (const cidr of [
      "169.254.169.254",
      "169.254.169.254/32",
      "fd00:ec2::254",
      "FD00:EC2::254",
    ]) {
      assert.equal(reach(cidr), "metadata", cidr);
    }
  });

  test("what is no network, port or field of a policy is refused", () => {
    const wrong: unknown[] = [
      { allow: [{ cidr: "10.0.0.0/8; drop" }] },
      { allow: [{ cidr: "10.0.0.0/8\naccept" }] },
      { allow: [{ cidr: "fe80::1%eth0" }] },
      { allow: [{ cidr: "10.0.0.0/8", ports: ["80,443"] }] },
      { allow: [{ cidr: "10.0.0.0/8", ports: [65_536] }] },
      { allow: [{ cidr: "10.0.0.0/8", protocol: "icmp" }] },
      { default: "drop" },
      { other: true },
    ];
    for (const egress of wrong) {
      assert.ok(!egressSchema.safeParse(egress).success, JSON.stringify(egress));
    }
  });
});
