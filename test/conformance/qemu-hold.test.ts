import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { skipWithout } from "../helpers/capability.ts";
import { holdConformance } from "./hold-suite.ts";
import { qemuSubject } from "./qemu-subject.ts";

const skip = skipWithout("root", "qemu", "guest-agent");

if (skip !== false) {
  test("guests that engine qemu holds", { skip }, () => undefined);
} else {
  const dir = await mkdtemp(join(tmpdir(), "forkd-hold-"));
  after(() => rm(dir, { recursive: true, force: true }));
  holdConformance("qemu", () => qemuSubject(dir));
}
