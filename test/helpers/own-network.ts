import { spawn } from "node:child_process";
import { once } from "node:events";
import { missing } from "./capabilities.ts";
import { skipWithout } from "./capability.ts";

const marker = "FORKD_TEST_OWN_NETWORK";
/** Names of namespaces are a mount each, so these are of its own too. */
const prepare = "mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up";

/** Why a file's tests cannot run in a network of their own; false when they can. */
export function skipWithoutOwnNetwork(): string | false {
  return skipWithout("root", "tun") || missing({ programs: ["ip", "nft", "unshare", "flock"] });
}

/**
 * Runs a test file again with a network and a /run of its own, where nothing is but a loopback:
 * what its tests make there is nobody's business, and goes with the process. Answers whether this
 * process is that one; the other has nothing to do but to wait.
 */
export async function enterOwnNetwork(
  file: string,
  before: () => Promise<unknown>,
): Promise<boolean> {
  if (process.env[marker] === "1") return true;
  await before();
  const words = [process.execPath, ...process.execArgv, file];
  const shell = ["sh", "-c", `${prepare} && exec "$@"`, "sh", ...words];
  const child = spawn("unshare", ["--net", "--mount", "--propagation", "private", ...shell], {
    env: { ...process.env, [marker]: "1" },
    stdio: "inherit",
  });
  const stop = (): void => void child.kill("SIGTERM");
  process.once("SIGTERM", stop);
  await once(child, "exit");
  process.exitCode = child.exitCode ?? 1;
  return false;
}
