import assert from "node:assert/strict";
import { copyFile, mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { ensureBaked } from "./baked.ts";
import { staticBusybox } from "./capabilities.ts";
import { forkd } from "./cli.ts";
import { makeDataDir } from "./data-dir.ts";
import { makeTmpDir } from "./tmp.ts";

/** A snapshot in a data directory of its own, for a system VM. */
export interface SmallSnapshot extends AsyncDisposable {
  /** For a system VM: /files/data is what belongs into the data directory there. */
  readonly files: Readonly<Record<string, string>>;
}

/**
 * Bakes the smallest guest that there is: what runs in it is emulated twice. Needs the capabilities
 * root, qemu and guest-agent, and a static busybox.
 */
export async function bakeSmall(tag: string): Promise<SmallSnapshot> {
  const stack = new AsyncDisposableStack();
  const dir = stack.use(await makeDataDir("small", await ensureBaked(), ["kernels"]));
  await using root = await makeTmpDir("busybox");
  await mkdir(join(root.path, "bin"));
  await copyFile(staticBusybox() ?? "", join(root.path, "bin/busybox"));
  for (const name of ["sh", "tail", "echo"]) {
    await symlink("busybox", join(root.path, "bin", name));
  }
  const bake = ["from-image", `dir:${root.path}`, "--tag", tag, "--mem-size-mib", "128"];
  const { code, stderr } = await forkd(bake, { dataDir: dir.path });
  assert.equal(code, 0, stderr);
  const data = ["snapshots", "rootfs"].map((name) => [`data/${name}`, join(dir.path, name)]);
  return {
    files: Object.fromEntries(data),
    [Symbol.asyncDispose]: () => stack[Symbol.asyncDispose](),
  };
}
