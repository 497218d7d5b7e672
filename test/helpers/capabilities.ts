import { accessSync, constants, readFileSync } from "node:fs";
import { join } from "node:path";

/** False when this host can run the test, else what it lacks: for `test(name, { skip })`. */
export function missing(needs: {
  readonly root?: boolean;
  readonly programs?: readonly string[];
}): string | false {
  if (needs.root === true && process.getuid?.() !== 0) return "needs root";
  const absent = (needs.programs ?? []).filter((name) => !hasProgram(name));
  return absent.length > 0 && `needs ${absent.join(", ")} (apt-get install)`;
}

function hasProgram(name: string): boolean {
  const dirs = [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin", "/sbin"];
  return dirs.some((dir) => {
    try {
      accessSync(join(dir, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** A busybox that runs in a root without libraries; undefined when this host has none. */
export function staticBusybox(): string | undefined {
  return ["/bin/busybox", "/usr/bin/busybox"].find((path) => {
    try {
      // A dynamic program names its loader.
      return !readFileSync(path).includes("/ld-linux");
    } catch {
      return false;
    }
  });
}
