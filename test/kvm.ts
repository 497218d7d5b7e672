/**
 * `npm run test:kvm`: forkd with hardware virtualisation, wherever QEMU runs: in an emulated Debian
 * whose processor has AMD's virtualisation, emulated too. `-- --firecracker PATH` runs Firecracker
 * there as well, locked in by the jailer beside it or by `--jailer PATH`; `--suite` runs
 * `npm run test:firecracker` there. Takes some minutes an engine on an idle machine; prints what it
 * does and exits with 1 when anything failed.
 */
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { EngineName } from "@forkd/api";
import { bakedImage, ensureBaked, repoRoot } from "./helpers/baked.ts";
import { skipWithout } from "./helpers/capability.ts";
import { runSuite, suiteFiles } from "./helpers/kvm-suite.ts";
import { KvmWalk } from "./helpers/kvm-walk.ts";
import { makeWorld, worldFiles } from "./helpers/kvm-world.ts";
import { installed, loadProgram, prepareController } from "./helpers/system-controller.ts";
import { skipWithoutSystemImage } from "./helpers/system-image.ts";
import { bootSystem, checkoutFiles } from "./helpers/system-vm.ts";
import { failUsage, readArgs } from "./runner/args.ts";

const vmMemoryMib = 3072;
/**
 * With two, QEMU 7.2 mixes up the SSE registers of a guest's guest when it is busy: a program that
 * looks at its own found others in 166 of 940 rounds, and in none of 1040 with one.
 */
const vmCpus = 1;
const usage = "npm run test:kvm -- [--firecracker PATH [--jailer PATH] [--suite]]";

const { values } = readArgs(usage, {
  options: {
    firecracker: { type: "string" },
    jailer: { type: "string" },
    suite: { type: "boolean", default: false },
  },
});

/** The programs as files of the VM, side by side as forkd looks for them; none when not asked. */
function firecrackerFiles(): Record<string, string> {
  if (values.firecracker === undefined) {
    if (values.suite) failUsage(usage, "the suite is Firecracker's");
    return {};
  }
  const firecracker = resolve(values.firecracker);
  const jailer = resolve(values.jailer ?? join(dirname(firecracker), "jailer"));
  const absent = [firecracker, jailer].filter((path) => !existsSync(path));
  if (absent.length > 0) failUsage(usage, `there is no ${absent.join(", no ")}`);
  return { "fc/firecracker": firecracker, "fc/jailer": jailer };
}

const programs = firecrackerFiles();
const lacks = skipWithoutSystemImage() || skipWithout("root", "qemu", "guest-agent");
if (lacks !== false) {
  console.error(`error: ${lacks}`);
  process.exit(1);
}
const { dataDir, tag } = await ensureBaked();
const parts = ["kernels", "rootfs", "cache/images", ...(values.suite ? [`snapshots/${tag}`] : [])];
const files = {
  ...checkoutFiles(),
  ...Object.fromEntries(parts.map((name) => [`data/${name}`, join(dataDir, name)])),
  ...programs,
  ...worldFiles,
  ...(values.suite ? suiteFiles : {}),
  [loadProgram.replace("/files/", "")]: join(repoRoot, "test/helpers/fork-load.py"),
};
await using vm = await bootSystem({ memoryMib: vmMemoryMib, cpus: vmCpus, kvm: true, files });
await vm.ok("modprobe kvm_amd && test -c /dev/kvm");
await prepareController(vm);
await makeWorld(vm);
const engines: readonly EngineName[] =
  Object.keys(programs).length === 0 ? ["qemu"] : ["qemu", "firecracker"];
let [passed, failed] = [0, 0];
for (const engine of engines) {
  const walk = new KvmWalk(vm, engine, bakedImage);
  await walk.all();
  passed += walk.passed;
  failed += walk.failed;
}
if (values.suite) {
  const whole = await runSuite(vm, { dataDir: installed.dataDir, tag });
  if (whole) passed += 1;
  else failed += 1;
}
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
