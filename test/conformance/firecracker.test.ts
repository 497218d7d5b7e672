import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { skipWithout } from "../helpers/capability.ts";
import { FakeFirecracker } from "../helpers/fake-firecracker.ts";
import { engineConformance } from "./engine-suite.ts";

const skip = skipWithout("root", "compiler", "guest-agent");

if (skip !== false) {
  test("engine firecracker on its stand-in", { skip }, () => undefined);
} else {
  /** Past what a file system has of its own. */
  const at = 40 * 1024 * 1024;
  const dir = await mkdtemp(join(tmpdir(), "forkd-fc-"));
  after(() => rm(dir, { recursive: true, force: true }));
  engineConformance("firecracker on its stand-in", async () => {
    const fake = await FakeFirecracker.make(join(dir, "fake"));
    const disk = {
      write: (word: string) => `#disk write ${at} ${word}`,
      read: `#disk read ${at} 5`,
    };
    return { engine: fake.engine(), ...(await fake.bootFiles()), dir, disk };
  });
}
