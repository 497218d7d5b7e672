/**
 * `npm run test:kvm`: forkd with hardware virtualisation, wherever QEMU runs: in an emulated Debian
 * whose processor has AMD's virtualisation, emulated too. `-- --firecracker PATH` runs Firecracker
 * there as well, locked in by the jailer beside it or by `--jailer PATH`. Takes half an hour an
 * engine; prints what it does and exits with 1 when anything failed.
 */
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { EngineName } from "@forkd/api";
import { bakedImage, ensureBaked, repoRoot } from "./helpers/baked.ts";
import { skipWithout } from "./helpers/capability.ts";
import { KvmWalk } from "./helpers/kvm-walk.ts";
import { loadProgram, prepareController } from "./helpers/system-controller.ts";
import { skipWithoutSystemImage } from "./helpers/system-image.ts";
import { bootSystem, checkoutFiles } from "./helpers/system-vm.ts";

const vmMemoryMib = 3072;

const { values } = parseArgs({
  options: { firecracker: { type: "string" }, jailer: { type: "string" } },
});

/** The programs as files of the VM, side by side as forkd looks for them; none when not asked. */
function firecrackerFiles(): Record<string, string> {
  if (values.firecracker === undefined) return {};
  const firecracker = resolve(values.firecracker);
  const jailer = resolve(values.jailer ?? join(dirname(firecracker), "jailer"));
  const absent = [firecracker, jailer].filter((path) => !existsSync(path));
  if (absent.length === 0) return { "fc/firecracker": firecracker, "fc/jailer": jailer };
  console.error(`error: there is no ${absent.join(", no ")}`);
  process.exit(2);
}

const programs = firecrackerFiles();
const lacks = skipWithoutSystemImage() || skipWithout("root", "qemu", "guest-agent");
if (lacks !== false) {
  console.error(`error: ${lacks}`);
  process.exit(1);
}
const { dataDir } = await ensureBaked();
const data = ["kernels", "rootfs", "cache/images"].map((name) => [
  `data/${name}`,
  join(dataDir, name),
]);
const files = {
  ...checkoutFiles(),
  ...Object.fromEntries(data),
  ...programs,
  [loadProgram.replace("/files/", "")]: join(repoRoot, "test/helpers/fork-load.py"),
};
await using vm = await bootSystem({ memoryMib: vmMemoryMib, kvm: true, files });
await vm.ok("modprobe kvm_amd && test -c /dev/kvm");
await prepareController(vm);
const engines: readonly EngineName[] =
  Object.keys(programs).length === 0 ? ["qemu"] : ["qemu", "firecracker"];
let [passed, failed] = [0, 0];
for (const engine of engines) {
  const walk = new KvmWalk(vm, engine, bakedImage);
  await walk.all();
  passed += walk.passed;
  failed += walk.failed;
}
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
