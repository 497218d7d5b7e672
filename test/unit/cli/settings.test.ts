import assert from "node:assert/strict";
import { test } from "node:test";
import type { SnapshotInfo } from "@forkd/api";
import { readSettings } from "@forkd/host/cli/context.ts";
import { daemonServes } from "@forkd/host/cli/daemon.ts";
import { Flags } from "@forkd/host/cli/flags.ts";
import { parseGuest } from "@forkd/host/cli/guest.ts";

const settings = (values: Record<string, unknown>) => readSettings(new Flags(values), {}, 0);

const snapshot = (dir: string): SnapshotInfo => ({
  tag: "t",
  dir,
  created_at_unix: 0,
  status: "ready",
  bootable: true,
});

test("the data directory of the command line moves every path", () => {
  const { paths, env, dataDirGiven } = settings({ dataDir: "/data" });
  assert.equal(paths.snapshotsDir, "/data/snapshots");
  assert.equal(env["FORKD_DATA_DIR"], "/data");
  assert.equal(dataDirGiven, true);
});

test("the daemon's address loses its last slashes and must be http", () => {
  assert.equal(settings({ daemonUrl: "http://h:1//" }).daemonUrl, "http://h:1");
  assert.equal(settings({}).daemonUrlGiven, false);
  for (const daemonUrl of ["h:1", "ftp://h", "nonsense"]) {
    assert.throws(() => settings({ daemonUrl }), { code: "bad_request" }, daemonUrl);
  }
});

test("a daemon with other data is not used when only a data directory was named", () => {
  const ours = snapshot("/data/snapshots/t");
  const others = snapshot("/var/lib/forkd/snapshots/t");
  assert.equal(daemonServes(settings({}), others), true);
  assert.equal(daemonServes(settings({ dataDir: "/data" }), ours), true);
  assert.equal(daemonServes(settings({ dataDir: "/data" }), others), false);
  const named = settings({ dataDir: "/data", daemonUrl: "http://h:1" });
  assert.equal(daemonServes(named, others), true);
});

test("a guest is a sandbox of the daemon, or an address", () => {
  const guest = (values: Record<string, unknown>, args: string[] = []) =>
    parseGuest({ flags: new Flags(values), args, rest: ["ls"] });
  assert.deepEqual(guest({}, ["sb-1"]), { by: "daemon", id: "sb-1" });
  assert.deepEqual(guest({ id: "sb-1" }), { by: "daemon", id: "sb-1" });
  const target = { host: "10.42.0.2", port: 8888 };
  assert.deepEqual(guest({}), { by: "tcp", target, netns: null });
  assert.deepEqual(guest({ child: "c1" }), { by: "tcp", target, netns: "c1" });
  assert.throws(() => guest({ id: "sb-1" }, ["sb-2"]), { code: "bad_request" });
  assert.throws(() => guest({}, ["a", "b"]), { code: "bad_request" });
  assert.throws(() => guest({}, ["../x"]), { code: "invalid_id" });
});
