/**
 * `firecracker-crash.ts FAKE DATA SANDBOX TAG`: a daemon that takes over the sandbox of a stand-in,
 * branches it, and is killed when all that the branch takes of the guest has been copied.
 */
import { parseSandboxId } from "@forkd/api";
import { jailDefaults } from "@forkd/host/engine/firecracker/jail.ts";
import { FakeFirecracker } from "./fake-firecracker.ts";
import { branchAsked, openFirecrackerService } from "./firecracker-service.ts";

const [fake = "", dataDir = "", id = "", tag = ""] = process.argv.slice(2);
const service = await openFirecrackerService({
  fake: FakeFirecracker.at(fake),
  dataDir,
  jail: jailDefaults,
  onStep: (step) => {
    if (step === "branch_captured") process.kill(process.pid, "SIGKILL");
  },
});
await service.branch(parseSandboxId(id), branchAsked(tag, "diff"));
