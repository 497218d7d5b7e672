import assert from "node:assert/strict";
import { test } from "node:test";
import { promisify } from "node:util";
import { Itinerary, reachOf } from "@forkd/host/remote/reach.ts";

test("tells apart how near an address is, however it is written", () => {
  const expected = {
    loopback: ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"],
    private: ["10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "64:ff9b::a00:1"],
    nowhere: ["169.254.169.254", "0.0.0.0", "::", "fe80::1", "224.0.0.1", "255.255.255.255"],
    public: ["192.0.2.1", "172.32.0.1", "2606:4700::1", "100.128.0.1"],
  };
  for (const [reach, addresses] of Object.entries(expected)) {
    for (const address of addresses) assert.equal(reachOf(address), reach, address);
  }
});

const url = (text: string): URL => new URL(text);

/** Whether who named the first may be sent to the second; both are numeric. */
function mayGo(named: string, hop: string): boolean {
  const itinerary = new Itinerary(url(named));
  itinerary.lookupFor(url(named));
  try {
    itinerary.requireHop(url(hop));
    itinerary.lookupFor(url(hop));
    return true;
  } catch (error) {
    assert.match(String(error), /sends us/);
    return false;
  }
}

test("whoever the user named cannot send us nearer than it is itself", () => {
  const far = "http://192.0.2.1";
  const near = "http://10.1.1.1";
  const here = "http://127.0.0.1:1";
  for (const [named, hop, expected] of [
    [far, "http://192.0.2.2", true],
    [far, near, false],
    [far, here, false],
    [far, "http://[::1]/", false],
    [far, "http://[::ffff:10.0.0.1]/", false],
    [far, "http://2130706433/", false],
    [near, "http://10.9.9.9", true],
    [near, here, false],
    [near, far, true],
    [here, "http://127.0.0.1:2", true],
    [here, near, true],
    [here, "http://169.254.169.254/latest/meta-data", false],
    [far, "file:///etc/passwd", false],
    [far, "http://user:secret@192.0.2.2/", false],
    ["https://192.0.2.1", "http://192.0.2.1", false],
    ["https://192.0.2.1", "https://192.0.2.2", true],
  ] as const) {
    assert.equal(mayGo(named, hop), expected, `${named} to ${hop}`);
  }
});

test("a name counts as what it resolves to, also when it changes its mind", async () => {
  const itinerary = new Itinerary(url("http://localhost/"));
  const lookup = promisify(itinerary.lookupFor(url("http://localhost/")));
  await lookup("localhost", { all: true });
  // It was at loopback, so it may send us there again, but a far one could not.
  itinerary.lookupFor(url("http://127.0.0.1/"));
  const far = new Itinerary(url("http://192.0.2.1/"));
  far.lookupFor(url("http://192.0.2.1/"));
  const hop = promisify(far.lookupFor(url("http://localhost/")));
  await assert.rejects(hop("localhost", { all: true }), { code: "remote_refused" });
});
