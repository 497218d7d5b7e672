import { join } from "node:path";
import { type Baked, repoRoot } from "./baked.ts";
import { trialSecs } from "./kvm-walk.ts";
import { installed } from "./system-controller.ts";
import type { SystemVm } from "./system-vm.ts";

/** Its own is the shorter one: docs/firecracker.md says what it runs. */
const timeoutMs = 20 * 60_000;

/** What {@link runSuite} needs in the files of a system VM, beside those of the checkout. */
export const suiteFiles = { "forkd/test": join(repoRoot, "test") } as const;

/**
 * `npm run test:firecracker` with the VM's Firecracker, on a snapshot that its data directory has.
 * Prints what that prints, the reasons of what was skipped too; answers whether nothing failed.
 */
export async function runSuite(vm: SystemVm, { dataDir, tag }: Baked): Promise<boolean> {
  console.log("\n## npm run test:firecracker");
  const env = [
    ...installed.env,
    `FORKD_KVM_TRIAL_SECS=${trialSecs}`,
    `FORKD_TEST_DATA_DIR=${dataDir}`,
    `FORKD_TEST_BAKED=${tag}`,
  ];
  const suite = "scripts/node test/firecracker.ts --binary /files/fc/firecracker";
  const command = `cd /files/forkd && env ${env.join(" ")} ${suite} 2>&1`;
  const { code, stdout } = await vm.run(command, { timeoutMs });
  console.log(stdout.trimEnd());
  return code === 0;
}
