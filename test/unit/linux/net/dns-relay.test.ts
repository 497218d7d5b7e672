import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseServers } from "@forkd/host/linux/net/dns-relay.ts";

describe("the host's name servers", () => {
  test("are the first three addresses of resolv.conf", () => {
    const text = [
      "# nameserver 192.0.2.9",
      "search example.test",
      "nameserver 127.0.0.53",
      "  nameserver\t2001:db8::1  ",
      "nameserver fe80::1%eth0",
      "nameserver 192.0.2.1",
      "options edns0",
    ].join("\n");
    assert.deepEqual(parseServers(text), ["127.0.0.53", "2001:db8::1", "fe80::1%eth0"]);
  });

  test("what is no address is none of them", () => {
    const text =
      "nameserver dns.example.test\nnameserver\nnameserver 300.1.1.1\nnameservers 1.1.1.1";
    assert.deepEqual(parseServers(text), []);
    assert.deepEqual(parseServers(""), []);
  });
});
