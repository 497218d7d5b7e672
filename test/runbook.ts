/**
 * `npm run test:runbook`: runs docs/runbook.md in an emulated Debian with systemd, from its
 * packages, and provokes the failures that it tells of. Takes about half an hour; exits with 1 when
 * anything is printed that the runbook does not say. `--debs DIR` takes packages that are built;
 * `--only HEADING`, more than once, runs these parts alone, after those that all need.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "@forkd/host/lib/exec.ts";
import { repoRoot } from "./helpers/baked.ts";
import { staticBusybox } from "./helpers/capabilities.ts";
import { skipWithout } from "./helpers/capability.ts";
import { FakeFirecracker } from "./helpers/fake-firecracker.ts";
import { isPrinted, type RunbookCommand, type RunbookPart, runbookOf } from "./helpers/runbook.ts";
import { bakeSmall } from "./helpers/small-snapshot.ts";
import { skipWithoutSystemImage } from "./helpers/system-image.ts";
import { bootSystem, type SystemVm } from "./helpers/system-vm.ts";
import { makeTmpDir } from "./helpers/tmp.ts";
import { failUsage, readArgs } from "./runner/args.ts";

/** A guest of an emulated host that is emulated itself, on a machine with other work. */
const commandTimeoutMs = 6 * 60_000;
/** For what only tells how things are: until it tells what it should. */
const settleMs = 3 * 60_000;
const againMs = 3_000;
const vmMemoryMib = 2048;
const tag = "pyagent";
const work = "/root/runbook";

/** What only looks, and may be asked again. */
const lookers =
  "curl -s|systemctl (?:is-active|show)|forkd (?:ls|images|inspect)|tail|journalctl|ls|ss";
const looks = new RegExp(String.raw`^(?:export \w+=\$\()?(?:${lookers})(?: |$)`);
/** Commands give an address that was named more time than one that is only tried. */
const operatorsShell = `cd ${work}; export FORKD_URL=http://127.0.0.1:8889`;

const token = "/etc/forkd/token";
const snapshots = "/var/lib/forkd/snapshots";
const snapshotDir = `${snapshots}/${tag}`;
/** What the others need: forkd, its token, a snapshot and sandboxes. */
const needed: readonly string[] = ["Install", "See that it works", "A first snapshot"];

/** What goes wrong before a part of the runbook is needed, by its heading. */
const provocations: Readonly<Record<string, string>> = {
  "A first snapshot": "cp -a /files/data/. /var/lib/forkd/",
  "The daemon does not start: the port is taken":
    "systemctl stop forkd-controller; systemctl reset-failed forkd-controller; " +
    "systemd-run --unit=squatter python3 -m http.server 8889 --bind 127.0.0.1; sleep 10",
  "The daemon does not start: its configuration": `echo CHANGE_ME > ${token}`,
  "The daemon is killed, or does not answer": "systemctl reset-failed forkd-controller",
  "A spawn is refused: the snapshot": `mv ${snapshotDir}/vmstate /var/lib/forkd/vmstate.away`,
  "A spawn is refused: the snapshot is of another engine":
    `cp -a --sparse=always ${snapshotDir} ${snapshots}/older; ` +
    `sed -i -E 's/"tag": *"${tag}"/"tag":"older"/; ` +
    `/"name": *"qemu"/,/isolation/ s/"version": *"[0-9.]+"/"version":"6.0.0"/' ` +
    `${snapshots}/older/snapshot.json`,
  "Firecracker is too old":
    `ln -s /files/firecracker/* ${work}/; ` +
    "printf '#!/bin/sh\\necho Firecracker v1.7.0\\n' >/usr/local/bin/firecracker; " +
    "chmod 755 /usr/local/bin/firecracker",
  "A sandbox reaches nothing that it may reach":
    "nft add table inet site; " +
    "nft 'add chain inet site through { type filter hook forward priority 0; policy drop; }'",
  "Something is left behind": "mkdir /var/lib/forkd/work/strange",
  "The disk is full":
    "fallocate -l $(df --output=avail -B1 /var/lib/forkd | tail -n 1) /var/lib/forkd/fill; " +
    "dd if=/dev/zero of=/var/lib/forkd/fill2 bs=4k 2>/dev/null; true",
};

class Runbook {
  readonly #vm: SystemVm;
  /** What the operator's shell has been told to export. */
  readonly #exports = new Map<string, string>();
  readonly wrong: string[] = [];

  constructor(vm: SystemVm) {
    this.#vm = vm;
  }

  async part(heading: string, commands: readonly RunbookCommand[]): Promise<void> {
    console.log(`\n## ${heading}`);
    const provocation = provocations[heading];
    if (provocation !== undefined) await this.#vm.ok(provocation, { timeoutMs: commandTimeoutMs });
    for (const command of commands) await this.#command(heading, command);
  }

  async #command(heading: string, { command, prints }: RunbookCommand): Promise<void> {
    console.log(`$ ${command}`);
    const until = performance.now() + (looks.test(command) ? settleMs : 0);
    const expected = prints.map((line) => this.#filled(line));
    for (;;) {
      const printed = await this.#run(command);
      if (isPrinted(expected, printed)) {
        if (printed !== "") console.log(printed.trimEnd());
        return;
      }
      if (performance.now() < until) {
        await sleep(againMs);
        continue;
      }
      console.log(`WRONG; printed:\n${printed.trimEnd()}\nexpected:\n${expected.join("\n")}`);
      this.wrong.push(`${heading}: ${command}`);
      return;
    }
  }

  /** Both outputs, as a terminal shows them. */
  async #run(command: string): Promise<string> {
    if (command === "systemctl reboot") {
      await this.#vm.reboot();
      // Commands run before all units have been started.
      await this.#vm.run("systemctl is-system-running --wait", { timeoutMs: commandTimeoutMs });
      return "";
    }
    const known = [...this.#exports].map(([name, value]) => `export ${name}='${value}'; `);
    const exported = /^export (\w+)=/.exec(command)?.[1];
    const told = exported === undefined ? command : `${command}; printf %s "$${exported}"`;
    const merged = exported === undefined ? "2>&1" : "";
    const shell = `${operatorsShell}; ${known.join("")}{ ${told}\n} ${merged}`;
    const { stdout, stderr } = await this.#vm.run(shell, { timeoutMs: commandTimeoutMs });
    if (exported === undefined) return stdout;
    this.#exports.set(exported, stdout.trim());
    return stdout.trim() === "" ? `${exported} is empty: ${stderr}` : "";
  }

  /** Names that the shell knows are what they stand for, in what is printed too. */
  #filled(line: string): string {
    return line.replaceAll(/\$(\w+)/g, (name, key: string) => this.#exports.get(key) ?? name);
  }
}

const usage = "npm run test:runbook -- [--debs DIR] [--only HEADING]...";
const { values } = readArgs(usage, {
  options: { debs: { type: "string" }, only: { type: "string", multiple: true } },
});

/** The packages that the runbook names, as files for the VM. */
async function packagesOf(text: string, outDir: string): Promise<Record<string, string>> {
  const names = new Set([...text.matchAll(/forkd_[\d.]+_amd64\.deb/g)].map(([name]) => name));
  const dir = values.debs ?? outDir;
  for (const name of values.debs === undefined ? names : []) {
    const version = name.split("_")[1] ?? "";
    const release = ["scripts/release.ts", "--out", dir, "--version", version];
    await run([join(repoRoot, "scripts/node"), ...release], { cwd: repoRoot });
  }
  return Object.fromEntries([...names].map((name) => [`debs/${name}`, join(dir, name)]));
}

/** The parts of these headings and what they need; all when none is named. Ends us for another. */
function wantedOf(all: readonly RunbookPart[], only: readonly string[] = []): RunbookPart[] {
  const known = all.map(({ heading }) => heading);
  const unknown = only.find((heading) => !known.includes(heading));
  if (unknown !== undefined) failUsage(usage, `no part "${unknown}": ${known.join(", ")}`);
  const wanted = only.length === 0 ? known : [...needed, ...only];
  return all.filter(({ heading }) => wanted.includes(heading));
}

const lacks =
  skipWithoutSystemImage() ||
  skipWithout("root", "qemu", "guest-agent") ||
  (staticBusybox() === undefined && "needs a static busybox (apt-get install busybox-static)");
if (lacks !== false) {
  console.error(`error: ${lacks}`);
  process.exit(1);
}
const text = readFileSync(join(repoRoot, "docs/runbook.md"), "utf8");
const parts = wantedOf(runbookOf(text), values.only);
await using tmp = await makeTmpDir("runbook");
await using snapshot = await bakeSmall(tag);
const firecracker = await FakeFirecracker.make(join(tmp.path, "fake"));
const files = {
  ...(await packagesOf(text, tmp.path)),
  ...snapshot.files,
  "firecracker/firecracker": firecracker.binary,
  "firecracker/jailer": firecracker.jailer,
};
await using vm = await bootSystem({ memoryMib: vmMemoryMib, files });
await vm.ok(`mkdir ${work} && ln -s /files/debs/* ${work}/`);
const runbook = new Runbook(vm);
for (const { heading, commands } of parts) await runbook.part(heading, commands);
for (const each of runbook.wrong) console.error(`wrong: ${each}`);
const count = parts.reduce((sum, { commands }) => sum + commands.length, 0);
console.log(`${count} commands, ${runbook.wrong.length} wrong`);
process.exitCode = runbook.wrong.length === 0 ? 0 : 1;
