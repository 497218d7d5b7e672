import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { skipWithout } from "../helpers/capability.ts";
import { captureConformance } from "./capture-suite.ts";
import { layerConformance } from "./layer-suite.ts";
import { qemuSubject } from "./qemu-subject.ts";

const skip = skipWithout("root", "qemu", "guest-agent");

if (skip !== false) {
  test("captures of engine qemu", { skip }, () => undefined);
} else {
  const dir = await mkdtemp(join(tmpdir(), "forkd-cap-"));
  after(() => rm(dir, { recursive: true, force: true }));
  captureConformance("qemu", () => qemuSubject(dir));
  layerConformance("qemu", () => qemuSubject(dir));
}
