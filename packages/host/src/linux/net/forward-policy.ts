import { z } from "zod";
import { tableName } from "./plan.ts";

/** A chain that drops what is forwarded unless one of its rules lets it through. */
export interface ClosedChain {
  /** `legacy`: of the iptables that nft does not show. */
  readonly by: "nft" | "legacy";
  /** `ip`, `ip6` or `inet`. */
  readonly family: string;
  readonly table: string;
  /** Where rules of an operator belong: DOCKER-USER where Docker made one, else the chain itself. */
  readonly chain: string;
}

const exprSchema = z.record(z.string(), z.unknown());
type Expr = z.infer<typeof exprSchema>;

const chainSchema = z.object({
  family: z.string(),
  table: z.string(),
  name: z.string(),
  hook: z.string().optional(),
  policy: z.string().optional(),
});
type Chain = z.infer<typeof chainSchema>;

const ruleSchema = z.object({
  family: z.string(),
  table: z.string(),
  chain: z.string(),
  expr: z.array(exprSchema),
});

/** What `nft -j list ruleset` prints, see libnftables-json(5); only what is read here. */
const rulesetSchema = z.object({
  nftables: z.array(
    z.object({ chain: chainSchema.optional(), rule: ruleSchema.optional() }).loose(),
  ),
});

const matchSchema = z.object({
  op: z.string(),
  left: z.record(z.string(), z.object({ key: z.string().optional() }).loose()),
  right: z.unknown(),
});
const jumpSchema = z.object({ target: z.string() });

/** Where Docker leaves room for rules of others, before its own. */
const operatorsChain = "DOCKER-USER";
const families: readonly string[] = ["ip", "ip6", "inet"];

/**
 * The chains of other tables that drop what the children behind `bridge` send, or the answers to
 * it: each table has its say, so what forkd's own accepts is not yet let through. A rule that is
 * not understood lets nothing through. Throws ZodError for what nft(8) does not print.
 */
export function closedChains(ruleset: unknown, bridge: string): ClosedChain[] {
  const objects = rulesetSchema.parse(ruleset).nftables;
  const chains = objects.flatMap(({ chain }) => (chain === undefined ? [] : [chain]));
  const rules = new Map<string, Expr[][]>();
  for (const { rule } of objects) {
    if (rule === undefined) continue;
    const key = keyOf(rule, rule.chain);
    rules.set(key, [...(rules.get(key) ?? []), rule.expr]);
  }
  const tables = new Set(chains.map((chain) => keyOf(chain, chain.name)));
  return chains
    .filter((chain) => isClosed(chain, { rules, bridge }))
    .map(({ family, table, name }) => {
      const isDocker = tables.has(keyOf({ family, table }, operatorsChain));
      return { by: "nft", family, table, chain: isDocker ? operatorsChain : name };
    });
}

/** The same for what `iptables-legacy -S` or `ip6tables-legacy -S` prints. */
export function closedLegacy(
  family: "ip" | "ip6",
  printed: string,
  bridge: string,
): ClosedChain | undefined {
  const lines = printed.split("\n").map((line) => line.trim());
  if (!lines.includes("-P FORWARD DROP")) return undefined;
  const chain = lines.includes(`-N ${operatorsChain}`) ? operatorsChain : "FORWARD";
  const opened = ["-i", "-o"].every((side) =>
    lines.some((line) => {
      const [append, where = "", ...rest] = line.split(" ");
      if (append !== "-A" || !["FORWARD", chain].includes(where)) return false;
      const rule = rest.join(" ");
      return rule.startsWith(`${side} ${bridge} `) && rule.endsWith("-j ACCEPT");
    }),
  );
  return opened ? undefined : { by: "legacy", family, table: "filter", chain };
}

/** The commands that let the children's packets and the answers to them through `closed`. */
export function openingCommands(closed: ClosedChain, bridge: string, hasIptables: boolean): string {
  const { by, family, table, chain } = closed;
  if (![table, chain].every((name) => /^[\w.-]+$/.test(name))) return "sudo nft list ruleset";
  if (by === "legacy" || (hasIptables && family !== "inet" && table === "filter")) {
    const suffix = by === "legacy" ? "-legacy" : "";
    const tool = `sudo ${family === "ip6" ? "ip6tables" : "iptables"}${suffix}`;
    const answers = "-m conntrack --ctstate RELATED,ESTABLISHED";
    return (
      `${tool} -I ${chain} -i ${bridge} -j ACCEPT && ` +
      `${tool} -I ${chain} -o ${bridge} ${answers} -j ACCEPT`
    );
  }
  const insert = `sudo nft insert rule ${family} ${table} ${chain}`;
  return (
    `${insert} iifname ${bridge} accept && ` +
    `${insert} oifname ${bridge} ct state established,related accept`
  );
}

function keyOf({ family, table }: { family: string; table: string }, chain: string): string {
  return JSON.stringify([family, table, chain]);
}

/** What comes from the children, and what goes to them. */
type Side = "iifname" | "oifname";

/** All rules by {@link keyOf} their chain, and whom they are asked about. */
interface Asked {
  readonly rules: ReadonlyMap<string, readonly Expr[][]>;
  readonly bridge: string;
}

function isClosed(chain: Chain, asked: Asked): boolean {
  const { family, table, name, hook, policy } = chain;
  if (hook !== "forward" || !families.includes(family) || table === tableName) return false;
  const last = (asked.rules.get(keyOf(chain, name)) ?? []).at(-1)?.filter(isTelling) ?? [];
  const endsIt = last.length === 1 && last.some((expr) => "drop" in expr || "reject" in expr);
  if (policy !== "drop" && !endsIt) return false;
  return !(letsThrough(chain, "iifname", asked) && letsThrough(chain, "oifname", asked));
}

/** Whether a rule of the chain, or of one that it leads to, accepts all of one side. */
function letsThrough(start: Chain, side: Side, { rules, bridge }: Asked): boolean {
  const seen = new Set<string>();
  const pending = [start.name];
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (seen.has(name)) continue;
    seen.add(name);
    for (const all of rules.get(keyOf(start, name)) ?? []) {
      const exprs = all.filter(isTelling);
      const verdict = exprs.at(-1);
      if (verdict === undefined) continue;
      if (!exprs.slice(0, -1).every((expr) => holds(expr, side, bridge))) continue;
      if ("accept" in verdict) return true;
      const jump = jumpSchema.safeParse(verdict["jump"] ?? verdict["goto"]);
      if (jump.success) pending.push(jump.data.target);
    }
  }
  return false;
}

/** Counting and logging decide nothing. */
function isTelling(expr: Expr): boolean {
  return !("counter" in expr || "log" in expr);
}

/** Whether a condition is true of all that is asked of it: the bridge, or that it is an answer. */
function holds(expr: Expr, side: Side, bridge: string): boolean {
  // Of iptables' own conditions only the name is shown.
  const own = z.object({ name: z.literal("conntrack") }).safeParse(expr["xt"]);
  if (own.success) return side === "oifname";
  const match = matchSchema.safeParse(expr["match"]);
  if (!match.success) return false;
  const { op, left, right } = match.data;
  const key = left["meta"]?.key;
  if (key === side || key === side.replace("name", "")) {
    return op !== "!=" && namesOf(right).includes(bridge);
  }
  return (
    side === "oifname" && left["ct"]?.key === "state" && namesOf(right).includes("established")
  );
}

/** `"a"`, `["a", "b"]` or `{"set": ["a", "b"]}`. */
function namesOf(right: unknown): readonly unknown[] {
  if (Array.isArray(right)) return right;
  const set = z.object({ set: z.array(z.unknown()) }).safeParse(right);
  return set.success ? set.data.set : [right];
}
