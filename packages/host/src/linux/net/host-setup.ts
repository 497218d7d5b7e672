import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import { isErrno, replaceFile } from "../../lib/atomic.ts";
import { deviceList } from "./devices.ts";
import { loadRules, runIp } from "./enter.ts";
import { hostRules, withoutTable } from "./host-rules.ts";
import { bridgeNet, type HostNetSettings } from "./plan.ts";
import { NetnsPool, poolDir } from "./pool.ts";

const settingsName = "host.json";
const settingsFile = join(poolDir, settingsName);
const sysctlDir = "/proc/sys/net";

const settingsSchema = z.object({
  bridge: z.string().regex(/^[\w-]{1,15}$/),
  net4: z.string().regex(/^\d{1,3}\.\d{1,3}$/),
  uplink: z
    .string()
    .regex(/^[\w.@-]{1,15}$/)
    .nullable(),
  /** What we changed: the value of before, by the name below /proc/sys/net. */
  sysctls: z.record(z.string().regex(/^ipv[46]\/[\w./-]+$/), z.string().regex(/^\d{1,2}$/)),
});
type HostState = z.infer<typeof settingsSchema>;

/** Whether this kernel speaks IPv6. */
export function hasIpv6(): boolean {
  return existsSync("/proc/net/if_inet6");
}

/** How the host's side was set up; undefined when it was not since the host's start. */
export async function readHostState(dir = poolDir): Promise<HostState | undefined> {
  const path = join(dir, settingsName);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  }
  const parsed = settingsSchema.safeParse(JSON.parse(text));
  if (parsed.success) return parsed.data;
  throw new ForkdError("state_corrupt", `${path} is damaged`, {
    hint: "remove it, then run: sudo forkd netns setup N",
  });
}

/** Makes the bridge, its rules and the forwarding; right when they are there. */
export async function setUpHost(settings: HostNetSettings): Promise<void> {
  const before = await readHostState();
  requireSame(settings, before);
  await mkdir(dirname(settingsFile), { recursive: true, mode: 0o700 });
  const wanted = await wantedSysctls();
  const sysctls = { ...wanted.before, ...before?.sysctls };
  // What is changed is written down first, so that it can be undone.
  await replaceFile(settingsFile, JSON.stringify({ ...settings, sysctls }));
  await loadRules(hostRules(settings), null);
  await runIp(bridgeLines(settings, (await deviceList()).has(settings.bridge)));
  for (const [name, value] of wanted.changes) await writeFile(join(sysctlDir, name), value);
}

/** Takes away what {@link setUpHost} made; right when it is gone. */
export async function tearDownHost(settings: HostNetSettings): Promise<void> {
  const state = await readHostState();
  await loadRules(withoutTable(), null);
  if ((await deviceList()).has(settings.bridge)) {
    await runIp([`link del ${settings.bridge}`]);
  }
  for (const [name, value] of Object.entries(state?.sysctls ?? {})) {
    // A device may be gone by now, with its settings.
    await writeFile(join(sysctlDir, name), value).catch(() => undefined);
  }
  await rm(settingsFile, { force: true });
  await new NetnsPool().forget();
}

function requireSame(settings: HostNetSettings, before: HostState | undefined): void {
  if (before === undefined) return;
  if (before.bridge === settings.bridge && before.net4 === settings.net4) return;
  const message = `the namespaces of this host are on ${before.bridge}, ${before.net4}.0.1`;
  throw new ForkdError("bad_request", message, {
    hint: "first run: sudo forkd netns teardown --yes --include-bridge",
  });
}

function bridgeLines({ bridge, net4 }: HostNetSettings, isThere: boolean): string[] {
  const { ip4, ip6, mac } = bridgeNet(net4);
  return [
    // With an address of its own it keeps that when its ports come and go.
    ...(isThere ? [] : [`link add ${bridge} address ${mac} type bridge stp_state 0`]),
    `address replace ${ip4}/16 dev ${bridge}`,
    ...(hasIpv6() ? [`address replace ${ip6}/64 dev ${bridge} nodad`] : []),
    `link set ${bridge} up`,
  ];
}

interface SysctlPlan {
  /** In the order in which they are made. */
  readonly changes: readonly (readonly [string, string])[];
  readonly before: Readonly<Record<string, string>>;
}

/**
 * A host that forwards IPv6 stops listening to routers, and would lose its own default route: those
 * devices that listened are told to go on (`accept_ra` 2, ip-sysctl).
 */
async function wantedSysctls(): Promise<SysctlPlan> {
  const changes: (readonly [string, string])[] = [];
  const before: Record<string, string> = {};
  const want = async (name: string, value: string, only?: string): Promise<boolean> => {
    const now = (await readFile(join(sysctlDir, name), "utf8").catch(() => "")).trim();
    if (now === "" || now === value || (only !== undefined && now !== only)) return false;
    before[name] = now;
    changes.push([name, value]);
    return true;
  };
  if (hasIpv6()) {
    const forwarding = "ipv6/conf/all/forwarding";
    const isOff = (await readFile(join(sysctlDir, forwarding), "utf8")).trim() === "0";
    if (isOff) {
      for (const device of await readdir(join(sysctlDir, "ipv6/conf"))) {
        await want(`ipv6/conf/${device}/accept_ra`, "2", "1");
      }
    }
    await want(forwarding, "1");
  }
  await want("ipv4/ip_forward", "1");
  return { changes, before };
}
