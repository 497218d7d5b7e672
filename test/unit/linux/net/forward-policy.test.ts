import assert from "node:assert/strict";
import { test } from "node:test";
import {
  closedChains,
  closedLegacy,
  openingCommands,
} from "@forkd/host/linux/net/forward-policy.ts";

const bridge = "forkd-br0";
const filter = { family: "ip", table: "filter" };
const chain = (name: string, more: object = {}) => ({ chain: { ...filter, name, ...more } });
const forward = (policy: string) => chain("FORWARD", { hook: "forward", policy });
const rule = (on: string, ...expr: object[]) => ({ rule: { ...filter, chain: on, expr } });

const counter = { counter: { packets: 0, bytes: 0 } };
const device = (key: string, right: unknown, op = "==") => ({
  match: { op, left: { meta: { key } }, right },
});
const answers = {
  match: { op: "in", left: { ct: { key: "state" } }, right: ["established", "related"] },
};
const port = {
  match: { op: "==", left: { payload: { protocol: "tcp", field: "dport" } }, right: 80 },
};
const conntrack = { xt: { type: "match", name: "conntrack" } };
const accept = { accept: null };
const jump = (target: string) => ({ jump: { target } });

const openRules = [
  rule("FORWARD", device("iifname", bridge), counter, accept),
  rule("FORWARD", device("oifname", bridge), conntrack, counter, accept),
];
const closed = (...objects: object[]): readonly string[] =>
  closedChains({ nftables: [{ metainfo: {} }, ...objects] }, bridge).map((found) => found.chain);

test("a policy of drop closes a chain, one of accept does not", () => {
  assert.deepEqual(closed(forward("drop")), ["FORWARD"]);
  assert.deepEqual(closed(forward("accept")), []);
  assert.deepEqual(closed(chain("INPUT", { hook: "input", policy: "drop" })), []);
  const ours = { family: "inet", table: "forkd", name: "forward", hook: "forward" };
  assert.deepEqual(closed({ chain: { ...ours, policy: "drop" } }), []);
});

test("so does a last rule that refuses all, but no earlier or conditional one", () => {
  const reject = rule("FORWARD", counter, { reject: { expr: "admin-prohibited" } });
  assert.deepEqual(closed(forward("accept"), reject), ["FORWARD"]);
  assert.deepEqual(closed(forward("accept"), reject, ...openRules.slice(0, 1)), []);
  const conditional = rule("FORWARD", device("iifname", "eth0"), { drop: null });
  assert.deepEqual(closed(forward("accept"), conditional), []);
});

test("it is open when rules let both sides through, wherever they are", () => {
  assert.deepEqual(closed(forward("drop"), ...openRules), []);
  assert.deepEqual(closed(forward("drop"), rule("FORWARD", counter, accept)), []);
  const elsewhere = [
    chain("ours"),
    rule("FORWARD", jump("ours")),
    rule("ours", device("iifname", { set: ["docker0", bridge] }), accept),
    rule("ours", answers, accept),
  ];
  assert.deepEqual(closed(forward("drop"), ...elsewhere), []);
});

test("one side, one port, another device or a chain that nobody calls is not enough", () => {
  const [out = {}, back = {}] = openRules;
  for (const one of [out, back]) assert.deepEqual(closed(forward("drop"), one), ["FORWARD"]);
  for (const condition of [
    [device("iifname", bridge), port],
    [device("iifname", "docker0")],
    [device("iifname", bridge, "!=")],
    [{ xt: { type: "match", name: "limit" } }],
    [answers],
  ]) {
    assert.deepEqual(closed(forward("drop"), rule("FORWARD", ...condition, accept), back), [
      "FORWARD",
    ]);
  }
  const uncalled = [chain("ours"), rule("ours", accept)];
  assert.deepEqual(closed(forward("drop"), ...uncalled), ["FORWARD"]);
});

test("chains that lead to each other come to an end", () => {
  const circle = [chain("a"), rule("FORWARD", jump("a")), rule("a", jump("FORWARD"))];
  assert.deepEqual(closed(forward("drop"), ...circle), ["FORWARD"]);
});

test("what is said to an operator is for the chain that Docker leaves to them", () => {
  const [found = assert.fail()] = closedChains(
    { nftables: [forward("drop"), chain("DOCKER-USER")] },
    bridge,
  );
  const iptables = "sudo iptables -I DOCKER-USER";
  assert.equal(
    openingCommands(found, bridge, true),
    `${iptables} -i forkd-br0 -j ACCEPT && ` +
      `${iptables} -o forkd-br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
  );
  assert.match(
    openingCommands(found, bridge, false),
    /^sudo nft insert rule ip filter DOCKER-USER/,
  );
  const strange = { ...found, chain: "$(reboot)" };
  assert.equal(openingCommands(strange, bridge, false), "sudo nft list ruleset");
});

test("the rules of the old iptables are read as it prints them", () => {
  const lines = ["-P INPUT ACCEPT", "-P FORWARD DROP", "-N DOCKER-USER"];
  const found = closedLegacy("ip6", lines.join("\n"), bridge) ?? assert.fail();
  assert.equal(found.chain, "DOCKER-USER");
  assert.match(openingCommands(found, bridge, false), /^sudo ip6tables-legacy -I DOCKER-USER -i/);
  const opened = [
    "-A DOCKER-USER -i forkd-br0 -j ACCEPT",
    "-A FORWARD -o forkd-br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
  ];
  assert.equal(closedLegacy("ip", [...lines, ...opened].join("\n"), bridge), undefined);
  assert.notEqual(
    closedLegacy("ip", [...lines, ...opened.slice(0, 1)].join("\n"), bridge),
    undefined,
  );
  assert.equal(closedLegacy("ip", "-P FORWARD ACCEPT", bridge), undefined);
});
