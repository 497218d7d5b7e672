import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "@forkd/host/lib/exec.ts";

/** Addresses of documentation (RFC 5737, RFC 3849) stand for the internet. */
export const world = {
  public4: "203.0.113.2",
  other4: "198.51.100.2",
  public6: "2001:db8:1::2",
  private4: "192.168.50.2",
  metadata4: "169.254.169.254",
  metadata6: "fd00:ec2::254",
} as const;

const host4 = "203.0.113.1";
const host6 = "2001:db8:1::1";

/** Ports on which everything of the world answers. */
export const ports = { web: 8080, other: 9090 } as const;

const fixture = (name: string): string => join(import.meta.dirname, "../fixtures", name);

/**
 * A network behind this process's own: one cable, and servers on every address of it, those too
 * that nobody should reach. For a process that entered a network of its own.
 */
export class TestWorld implements AsyncDisposable {
  readonly #servers: ChildProcess[] = [];

  static async make(): Promise<TestWorld> {
    await ip([
      "netns add world",
      "link add uplink0 type veth peer name eth0 netns world",
      `address add ${host4}/24 dev uplink0`,
      `address add ${host6}/64 dev uplink0 nodad`,
      "link set uplink0 up",
      // All that is not the host's own lies there.
      `route add default via ${world.public4}`,
      `route add default via ${world.public6}`,
      `route add ${world.metadata4} via ${world.public4}`,
    ]);
    const inside = [
      "link set lo up",
      `address add ${world.public4}/24 dev eth0`,
      `address add ${world.public6}/64 dev eth0 nodad`,
      ...[world.other4, world.private4, world.metadata4].map(
        (address) => `address add ${address}/32 dev lo`,
      ),
      `address add ${world.metadata6}/128 dev lo nodad`,
      "link set eth0 up",
    ];
    await ip(inside, "world");
    const made = new TestWorld();
    await made.serve("world", [ports.web, ports.other]);
    return made;
  }

  /** Servers on every address of a namespace; null: of this process's own. */
  async serve(netns: string | null, on: readonly number[]): Promise<void> {
    const enter = netns === null ? [] : ["nsenter", `--net=/run/netns/${netns}`];
    await this.#start([...enter, process.execPath, fixture("tcp-server.mjs"), ...on.map(String)]);
  }

  /**
   * A name server on this process's loopback that is the host's only one from now on; it answers
   * every question with `answer`. `file` is what /etc/resolv.conf becomes.
   */
  async serveNames(file: string, answer: string): Promise<void> {
    const address = "127.0.0.77";
    await this.#start([process.execPath, fixture("dns-server.mjs"), address, answer]);
    await writeFile(file, `nameserver ${address}\n`);
    // In the mounts of this process alone.
    await run(["mount", "--bind", file, "/etc/resolv.conf"]);
  }

  async #start([program = "", ...args]: readonly string[]): Promise<void> {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
    this.#servers.push(child);
    await Promise.race([
      once(child.stdout, "data"),
      once(child, "exit").then(() => Promise.reject(new Error("the servers ended"))),
    ]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#servers) child.kill("SIGKILL");
  }
}

async function ip(lines: readonly string[], netns?: string): Promise<void> {
  const where = netns === undefined ? [] : ["-n", netns];
  await run(["ip", ...where, "-batch", "-"], { input: `${lines.join("\n")}\n` });
}
