import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { skipWithout } from "../helpers/capability.ts";
import { engineConformance } from "./engine-suite.ts";
import { qemuSubject } from "./qemu-subject.ts";

const skip = skipWithout("root", "qemu", "guest-agent");

if (skip !== false) {
  test("engine qemu", { skip }, () => undefined);
} else {
  const dir = await mkdtemp(join(tmpdir(), "forkd-conf-"));
  after(() => rm(dir, { recursive: true, force: true }));
  engineConformance("qemu", () => qemuSubject(dir));
}
