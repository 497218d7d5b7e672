import assert from "node:assert/strict";
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { CheckStatus } from "@forkd/host/doctor/check.ts";
import { type DoctorHost, makeDoctorHost, mend } from "../../helpers/doctor-host.ts";

/** `hint`: pasting it mends; `both`: --fix does, too; `none`: nothing on this host can. */
type MendedBy = "hint" | "both" | "none";
type BreakIt = (host: DoctorHost) => Promise<unknown>;

const rows: readonly (readonly [
  check: string,
  what: string,
  status: CheckStatus,
  detail: RegExp,
  mendedBy: MendedBy,
  breakIt: BreakIt,
])[] = [
  ["platform", "no Linux", "fail", /no Linux/, "none", (h) => h.write("proc/version", "Darwin")],
  ["kernel", "an old kernel", "fail", /5\.4\.1 is older/, "none", (h) => release(h, "5.4.1")],
  ["kernel", "a kernel of 2023", "warn", /need 6\.7/, "none", (h) => release(h, "6.1.0-13")],
  [
    "hw-virt",
    "no virtualisation",
    "warn",
    /neither vmx nor svm/,
    "none",
    (h) => h.write("proc/cpuinfo", "flags : fpu sse\n"),
  ],
  ["kvm", "no KVM", "warn", /kvm is missing/, "hint", (h) => h.remove("dev/kvm")],
  [
    "clocksource",
    "a slow clock",
    "warn",
    /hpet is slow/,
    "hint",
    (h) => h.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
  ],
  ["pids", "few pids", "warn", /up to 4096/, "hint", (h) => sysctl(h, "kernel/pid_max", "4096")],
  ["qemu", "no QEMU", "fail", /not on PATH/, "hint", (h) => h.remove("bin/qemu-system-x86_64")],
  [
    "qemu",
    "an old QEMU",
    "warn",
    /5\.2\.0 is older/,
    "hint",
    (h) => h.write("bin/qemu-system-x86_64", "#!/bin/sh\necho version 5.2.0\n", 0o755),
  ],
  ["image-tools", "no skopeo", "warn", /PATH: skopeo;/, "hint", (h) => h.remove("bin/skopeo")],
  ["net-tools", "no nft", "warn", /nftables/, "hint", (h) => h.remove("bin/nft")],
  ["memory", "a full host", "fail", /195 MiB/, "none", (h) => memory(h, 200_000)],
  ["memory", "a small host", "warn", /781 MiB/, "none", (h) => memory(h, 800_000)],
  [
    "overcommit",
    "strict accounting",
    "warn",
    /overcommit_memory is 2/,
    "hint",
    (h) => sysctl(h, "vm/overcommit_memory", "2"),
  ],
  ["ksm", "no merging", "skip", /off/, "hint", (h) => h.write("sys/kernel/mm/ksm/run", "0\n")],
  ["tun", "no tun", "warn", /tun is missing/, "hint", (h) => h.remove("dev/net/tun")],
  // What Docker leaves to root.
  [
    "tun",
    "no CAP_NET_ADMIN",
    "warn",
    /CAP_NET_ADMIN, CAP_SYS_/,
    "none",
    (h) => caps(h, "a80425fb"),
  ],
  ["tun", "no CAP_SYS_ADMIN", "warn", /no CAP_SYS_ADMIN/, "none", (h) => caps(h, "00001000")],
  [
    "tap",
    "a tap that is down",
    "warn",
    /is down/,
    "hint",
    (h) => h.write("sys/class/net/forkd-tap0/flags", "0x1002\n"),
  ],
  [
    "netns-stale",
    "a name without its namespace",
    "fail",
    /1 names without/,
    "both",
    (h) => h.write("netns/forkd-child-7", ""),
  ],
  ["data-dir", "no directory", "warn", /not there yet/, "both", (h) => h.remove("data")],
  [
    "data-dir",
    "a directory for everybody",
    "fail",
    /others may write/,
    "both",
    (h) => chmod(join(h.root, "data"), 0o777),
  ],
  [
    "audit-log",
    "a log for everybody",
    "fail",
    /others may write/,
    "both",
    (h) => chmod(join(h.root, "data/audit.log"), 0o666),
  ],
  [
    "audit-log",
    "a directory in its place",
    "fail",
    /is no file/,
    "none",
    async (h) => {
      await h.remove("data/audit.log");
      await mkdir(join(h.root, "data/audit.log"));
    },
  ],
  [
    "token",
    "a token to read",
    "fail",
    /mode 644/,
    "both",
    (h) => chmod(`${h.root}/etc/token`, 0o644),
  ],
  ["token", "a short token", "fail", /fewer than 16/, "hint", (h) => h.write("etc/token", "abc")],
  [
    "leaks",
    "a stranger's directory",
    "warn",
    /1 left behind, such as work_dir .*work\/strange/,
    "both",
    (h) => mkdir(join(h.root, "data/work/strange"), { recursive: true }),
  ],
];

const release = (host: DoctorHost, text: string) => sysctl(host, "kernel/osrelease", text);
const sysctl = (host: DoctorHost, name: string, text: string) =>
  host.write(`proc/sys/${name}`, `${text}\n`);
const caps = (host: DoctorHost, mask: string) =>
  host.write("proc/self/status", `CapBnd:\t00000000${mask}\n`);
const memory = (host: DoctorHost, kib: number) =>
  host.write("proc/meminfo", `MemAvailable:   ${kib} kB\n`);

for (const [check, what, status, detail, mendedBy, breakIt] of rows) {
  test(`${check}: ${what} is found${mendedBy === "none" ? "" : ", and its hint mends it"}`, async () => {
    await using host = await makeDoctorHost();
    assert.equal((await host.look(check)).status, "pass");
    await breakIt(host);
    const found = await host.look(check);
    assert.equal(found.status, status, found.detail);
    assert.match(found.detail, detail);
    assert.ok(found.hint !== null);
    host.paste(mendedBy === "none" ? `sh -n <<'END'\n${found.hint}\nEND` : found.hint);
    if (mendedBy !== "none") assert.equal((await host.look(check)).status, "pass");
  });
  if (mendedBy !== "both") continue;
  test(`${check}: ${what} is mended by --fix, which says so`, async () => {
    await using host = await makeDoctorHost();
    await breakIt(host);
    const after = await mend(host, check);
    assert.equal(after.status, "pass", after.detail);
    assert.ok(after.fixed !== null && after.fixed.length > 0);
  });
}
