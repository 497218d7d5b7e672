import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { run } from "@forkd/host/lib/exec.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import { skipWithout } from "../../helpers/capability.ts";

const skip =
  skipWithout("root", "tun") ||
  missing({ programs: ["setpriv"], capabilities: ["net_admin", "sys_admin"] });
const module = join(repoRoot, "packages/host/src/engine/firecracker/card.ts");
const script = `const { canHaveCards } = await import(${JSON.stringify(module)});
console.log(await canHaveCards());`;

/** What a process says that root starts without these capabilities. */
async function saidWithout(...capabilities: readonly string[]): Promise<string> {
  const dropped = capabilities.map((name) => `-${name}`).join(",");
  const less = dropped === "" ? [] : ["setpriv", `--bounding-set=${dropped}`];
  const flags = ["--conditions=forkd-source", "--input-type=module", "--eval", script];
  const { stdout } = await run([...less, process.execPath, ...flags]);
  return stdout.trim();
}

test("root without the capabilities of the network has no cards to give", { skip }, async () => {
  assert.equal(await saidWithout(), "true");
  assert.equal(await saidWithout("net_admin"), "false");
  assert.equal(await saidWithout("sys_admin"), "false");
  assert.equal(await saidWithout("chown"), "true");
});
