import { z } from "zod";
import { run } from "../../lib/exec.ts";
import { deviceList } from "./devices.ts";
import { runIp } from "./enter.ts";
import { deviceNames, gateway4, guestShared } from "./plan.ts";

const askTimeoutMs = 5_000;

const addressesSchema = z.array(
  z.object({
    flags: z.array(z.string()).default([]),
    addr_info: z
      .array(z.object({ local: z.string().optional(), valid_life_time: z.number().optional() }))
      .default([]),
  }),
);

/**
 * Gives the loopback interface upstream's address of a guest, for clients that know no other, when
 * this is root's and a host is laid out for such a guest: its tap is there and no VM has it. The
 * kernel takes the address away after `maxSecs` when nobody else does. Undefined where that is not
 * so. Throws tool_failed, tool_missing.
 */
export async function lendGuestAddress(maxSecs: number): Promise<AsyncDisposable | undefined> {
  if (process.getuid?.() !== 0 || !(await isTapFree())) return undefined;
  const address = `${guestShared}/32 dev lo`;
  await runIp([`address add ${address} valid_lft ${maxSecs} preferred_lft ${maxSecs}`]);
  // Somebody may have taken it away meanwhile; then there is nothing to do.
  return { [Symbol.asyncDispose]: () => runIp([`address del ${address}`]).catch(() => undefined) };
}

/** What the kernel says of an address that nobody takes away (INFINITY_LIFE_TIME). */
const foreverSecs = 0xffff_ffff;

/**
 * One that a killed fork has left stays for `maxSecs` more; one of the user's is left alone. Throws
 * tool_failed, tool_missing.
 */
export async function renewGuestAddress(maxSecs: number): Promise<void> {
  if (process.getuid?.() !== 0) return;
  const words = ["ip", "-json", "address", "show", "dev", "lo"];
  const { stdout } = await run(words, { timeoutMs: askTimeoutMs });
  const [lo] = addressesSchema.parse(JSON.parse(stdout));
  const leftSecs = lo?.addr_info.find(({ local }) => local === guestShared)?.valid_life_time;
  if (leftSecs === undefined || leftSecs === foreverSecs || leftSecs >= maxSecs) return;
  const address = `${guestShared}/32 dev lo`;
  await runIp([`address change ${address} valid_lft ${maxSecs} preferred_lft ${maxSecs}`]);
}

/** Whether scripts/host-tap.sh has made the tap, with upstream's address, and no VM has opened it. */
async function isTapFree(): Promise<boolean> {
  if (!(await deviceList()).has(deviceNames.tap)) return false;
  const words = ["ip", "-json", "address", "show", "dev", deviceNames.tap];
  const { stdout } = await run(words, { timeoutMs: askTimeoutMs });
  const [tap] = addressesSchema.parse(JSON.parse(stdout));
  const hasGateway = tap?.addr_info.some(({ local }) => local === gateway4) === true;
  return hasGateway && tap.flags.includes("NO-CARRIER");
}
