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
  const dir = await mkdtemp(join(tmpdir(), "forkd-fc-"));
  after(() => rm(dir, { recursive: true, force: true }));
  engineConformance("firecracker on its stand-in", async () => {
    const fake = await FakeFirecracker.make(join(dir, "fake"));
    return { engine: fake.engine(), ...(await fake.bootFiles()), dir };
  });
}
