import { access, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { findOnPath } from "../lib/programs.ts";
import {
  type ClosedChain,
  closedChains,
  closedLegacy,
  openingCommands,
} from "../linux/net/forward-policy.ts";
import { readHostState } from "../linux/net/host-setup.ts";
import { hostNetDefaults } from "../linux/net/plan.ts";
import { isNetns, NetnsPool } from "../linux/net/pool.ts";
import { parseCapabilities } from "../linux/privileges.ts";
import { type Check, type Finding, fail, pass, skip, warn } from "./check.ts";
import { ask, type DoctorScope, readNumber, readText } from "./scope.ts";

/** Network namespaces of children, as netns-setup.sh names them. */
const childPattern = /^forkd-child-\d{1,6}$/;
/** if.h: the interface is up. */
const interfaceUp = 0x1;
/** For namespaces and taps; of a container's root they are often taken. */
const netCapabilities = ["net_admin", "sys_admin"] as const;
const hostTap = "forkd-tap0";
const provision = "sudo forkd netns setup 100";

export const networkChecks: readonly Check[] = [
  { name: "net-tools", run: netTools },
  { name: "tun", run: tun },
  { name: "tap", run: tap },
  { name: "netns", run: netns },
  { name: "netns-stale", run: staleNetns },
  { name: "ip_forward", run: ipForward },
  { name: "masquerade", run: masquerade },
  { name: "forward", run: forward },
];

async function netTools({ path }: DoctorScope): Promise<Finding> {
  const packages = { ip: "iproute2", nft: "nftables" };
  const missing: string[] = [];
  for (const [name, from] of Object.entries(packages)) {
    if ((await findOnPath(name, path)) === undefined) missing.push(from);
  }
  if (missing.length === 0) return pass(Object.keys(packages).join(", "));
  const detail = `not installed: ${missing.join(", ")}; guests get no network without`;
  return warn(detail, `sudo apt-get install -y ${missing.join(" ")}`);
}

async function tun({ roots }: DoctorScope): Promise<Finding> {
  const device = join(roots.dev, "net/tun");
  const there = await access(device).then(
    () => true,
    () => false,
  );
  if (!there) return warn(`${device} is missing: guests get no network`, "sudo modprobe tun");
  const status = (await readText(join(roots.proc, "self/status"))) ?? "";
  const held = parseCapabilities(status, "CapBnd");
  const lacking = netCapabilities.filter((name) => !held.has(name));
  if (lacking.length === 0) return pass(`${device} is there`);
  const names = lacking.map((name) => `CAP_${name.toUpperCase()}`).join(", ");
  const given = lacking.map((name) => `--cap-add ${name.toUpperCase()}`).join(" ");
  const hint = `grep CapBnd /proc/self/status  # docker run ${given} gives them to a container`;
  return warn(`root has no ${names} here: guests get no network`, hint);
}

async function tap({ roots }: DoctorScope): Promise<Finding> {
  const flags = await readText(join(roots.sys, "class/net", hostTap, "flags"));
  if (flags === undefined) {
    return skip(`there is no ${hostTap}; children have their own`, "sudo forkd netns host-tap");
  }
  if ((Number(flags) & interfaceUp) !== 0) return pass(`${hostTap} is up`);
  return warn(`${hostTap} is down`, `sudo ip link set ${hostTap} up`);
}

interface ChildNames {
  readonly live: readonly string[];
  /** Names that stand for no namespace any more. */
  readonly stale: readonly string[];
}

async function childNames({ roots }: DoctorScope): Promise<ChildNames> {
  const all = await readdir(roots.netns).catch(() => []);
  const names = all.filter((name) => childPattern.test(name));
  const alive = await Promise.all(names.map((name) => isNetns(join(roots.netns, name))));
  return {
    live: names.filter((_, i) => alive[i] === true),
    stale: names.filter((_, i) => alive[i] !== true),
  };
}

async function netns(scope: DoctorScope): Promise<Finding> {
  const { live } = await childNames(scope);
  if (live.length === 0) {
    return skip("none is provisioned: per_child_netns is refused, the rest works", provision);
  }
  const pool = new NetnsPool(scope.roots.netnsPool);
  const [free, held] = [(await pool.free()).length, (await pool.held()).length];
  const detail = `${live.length} are provisioned for children, ${free} of them are free`;
  const unknown = live.length - free - held;
  if (unknown <= 0) return pass(detail);
  return warn(`${detail}, ${unknown} are known to nobody`, `sudo forkd netns setup ${live.length}`);
}

/** What is left of a set-up that was cut off: a name that no namespace can take again. */
async function staleNetns(scope: DoctorScope): Promise<Finding> {
  const { stale } = await childNames(scope);
  const [first] = stale;
  if (first === undefined) return pass("no name stands for nothing");
  const paths = stale.map((name) => join(scope.roots.netns, name));
  const detail = `${stale.length} names without a namespace, such as ${first}`;
  return fail(detail, `sudo rm -f ${paths.slice(0, 20).join(" ")}`, async () => {
    for (const path of paths) await rm(path, { force: true });
    return `removed ${stale.length} names; to have them again: ${provision}`;
  });
}

async function ipForward(scope: DoctorScope): Promise<Finding> {
  const on = (await readNumber(join(scope.roots.proc, "sys/net/ipv4/ip_forward"))) === 1;
  if (on) return pass("IPv4 is forwarded");
  const set = "sudo sysctl -w net.ipv4.ip_forward=1";
  const { live } = await childNames(scope);
  if (live.length === 0) return skip("off; no child has a network", set);
  return fail("off: what children send goes nowhere", set);
}

/** Whether what children send gets an address that the world can answer. */
async function masquerade(scope: DoctorScope): Promise<Finding> {
  const { live } = await childNames(scope);
  if (live.length === 0) return skip("no child has a network", provision);
  const rules = await natRules(scope);
  if (rules === undefined) return skip("the rules are not ours to read", "sudo nft list ruleset");
  if (/\bmasquerade\b/i.test(rules)) return pass("a rule masquerades what children send");
  return fail("no rule masquerades what children send: nobody answers them", provision);
}

async function natRules(scope: DoctorScope): Promise<string | undefined> {
  const nft = await ask(scope, ["nft", "list", "ruleset"]).catch(() => undefined);
  if (nft !== undefined && /\bmasquerade\b/i.test(nft.stdout)) return nft.stdout;
  const iptables = await ask(scope, ["iptables", "-t", "nat", "-S"]).catch(() => undefined);
  return iptables?.stdout ?? nft?.stdout;
}

/** Whether another firewall of the host, such as Docker's, drops what children send. */
async function forward(scope: DoctorScope): Promise<Finding> {
  const { live } = await childNames(scope);
  if (live.length === 0) return skip("no child has a network", provision);
  const { bridge } = (await readHostState(scope.roots.netnsPool)) ?? hostNetDefaults;
  const nft = await ask(scope, ["nft", "-j", "list", "ruleset"]).catch(() => undefined);
  if (nft === undefined) return skip("the rules are not ours to read", "sudo nft list ruleset");
  const closed = [
    ...closedChains(JSON.parse(nft.stdout || emptyRuleset), bridge),
    ...(await legacyChains(scope, bridge)),
  ];
  if (closed.length === 0) return pass("no other rule drops what is forwarded for children");
  const names = closed.map(({ family, table, chain }) => `${family} ${table} ${chain}`);
  const detail = `what children send is dropped by another firewall: ${names.join(", ")}`;
  const hasIptables = (await findOnPath("iptables", scope.path)) !== undefined;
  const hint = closed.map((chain) => openingCommands(chain, bridge, hasIptables)).join(" && ");
  return warn(detail, hint);
}

const emptyRuleset = '{"nftables":[]}';

/** The rules that nft does not see; asked for only when there are some, as asking makes tables. */
async function legacyChains(scope: DoctorScope, bridge: string): Promise<ClosedChain[]> {
  const closed: ClosedChain[] = [];
  for (const family of ["ip", "ip6"] as const) {
    const tables = await readText(join(scope.roots.proc, `net/${family}_tables_names`));
    if (tables?.split("\n").includes("filter") !== true) continue;
    const tool = family === "ip6" ? "ip6tables-legacy" : "iptables-legacy";
    const said = await ask(scope, [tool, "-S"]).catch(() => undefined);
    const chain = closedLegacy(family, said?.stdout ?? "", bridge);
    if (chain !== undefined) closed.push(chain);
  }
  return closed;
}
