import { packageOf } from "../lib/program-packages.ts";
import { findOnPath } from "../lib/programs.ts";
import { type Check, type Finding, pass, skip, warn } from "./check.ts";
import { ask, type DoctorScope } from "./scope.ts";

/** What makes root images of registries, archives and Debian suites. */
const imagePrograms = ["skopeo", "umoci", "mmdebstrap", "mkfs.ext4", "unshare", "tar", "crun"];

export const imageChecks: readonly Check[] = [
  { name: "image-tools", run: imageTools },
  { name: "docker", run: docker },
];

async function imageTools({ path }: DoctorScope): Promise<Finding> {
  const found = await Promise.all(imagePrograms.map((name) => findOnPath(name, path)));
  const missing = imagePrograms.filter((_, i) => found[i] === undefined);
  if (missing.length === 0) return pass(imagePrograms.join(", "));
  const packages = [...new Set(missing.map(packageOf))].join(" ");
  const detail = `not on PATH: ${missing.join(", ")}; images that need them cannot be made`;
  return warn(detail, `sudo apt-get install -y ${packages}`);
}

/** Upstream pulls images with it. */
async function docker(scope: DoctorScope): Promise<Finding> {
  const said = await ask(scope, ["docker", "--version"]).catch(() => undefined);
  const needless = "forkd pulls images without it";
  if (said === undefined) return skip(`not installed; ${needless}`);
  return pass(`${said.stdout.trim().slice(0, 60)}; ${needless}`);
}
