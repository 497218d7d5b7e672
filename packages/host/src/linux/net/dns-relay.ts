import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { readFile } from "node:fs/promises";
import { connect, createServer, isIP, type Server, type Socket } from "node:net";

const namePort = 53;
/** Of one query or answer; EDNS has no larger ones in use, and what is larger asks by TCP. */
const datagramBytesMax = 4096;
/** The header (RFC 1035, 4.1.1): its first two bytes are the query's id. */
const headerBytes = 12;
const queriesMax = 512;
const queriesPerClientMax = 64;
const connectionsMax = 64;
/** Each name server has this long; glibc's clients ask again after as much. */
const answerTimeoutMs = 5_000;
const connectionMaxMs = 10_000;
/** As many as glibc asks (resolv.conf(5), MAXNS). */
const serversMax = 3;
const resolvConfBytesMax = 64 * 1024;

export interface DnsRelayOptions {
  readonly address: string;
  readonly port: number;
  /** File to read the name servers from, each time; the host's own when absent. */
  readonly resolvConf?: string;
}

/**
 * Hands queries of guests to whatever name servers the host uses now, on its loopback too, and the
 * answers back. It understands nothing of them but their ids. What is over a bound is dropped:
 * clients ask again.
 */
export class DnsRelay implements AsyncDisposable {
  readonly #options: DnsRelayOptions;
  readonly #udp: UdpSocket;
  readonly #tcp: Server;
  readonly #perClient = new Map<string, number>();
  #queries = 0;

  private constructor(options: DnsRelayOptions) {
    this.#options = options;
    this.#udp = createSocket({ type: "udp4" });
    this.#udp.on("message", (query, from) => void this.#answer(query, from));
    this.#tcp = createServer({ allowHalfOpen: true }, (client) => void this.#join(client));
    this.#tcp.maxConnections = connectionsMax;
  }

  /** Throws what the kernel says of the address: EADDRINUSE when another relay has it. */
  static async open(options: DnsRelayOptions): Promise<DnsRelay> {
    const relay = new DnsRelay(options);
    try {
      await relay.#bind();
      return relay;
    } catch (error) {
      await relay[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Where it listens. */
  get port(): number {
    return this.#udp.address().port;
  }

  async #bind(): Promise<void> {
    const { address, port } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#udp.once("error", reject);
      this.#udp.bind({ address, port, exclusive: true }, resolve);
    });
    await new Promise<void>((resolve, reject) => {
      this.#tcp.once("error", reject);
      this.#tcp.listen({ host: address, port: this.port, exclusive: true }, resolve);
    });
    for (const each of [this.#udp, this.#tcp]) each.on("error", () => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = [this.#udp, this.#tcp].map(
      (each) =>
        new Promise<void>((resolve) => {
          try {
            each.close(() => resolve());
          } catch {
            // It was never bound.
            resolve();
          }
        }),
    );
    await Promise.all(closed);
  }

  async #answer(query: Buffer, { address, port }: RemoteInfo): Promise<void> {
    const ofClient = this.#perClient.get(address) ?? 0;
    if (query.length < headerBytes || query.length > datagramBytesMax) return;
    if (this.#queries >= queriesMax || ofClient >= queriesPerClientMax) return;
    this.#queries += 1;
    this.#perClient.set(address, ofClient + 1);
    try {
      const answer = await this.#ask(query);
      if (answer !== undefined) this.#udp.send(answer, port, address, () => undefined);
    } catch {
      // Closed meanwhile: whoever asked asks again.
    } finally {
      this.#queries -= 1;
      const left = (this.#perClient.get(address) ?? 1) - 1;
      if (left === 0) this.#perClient.delete(address);
      else this.#perClient.set(address, left);
    }
  }

  async #ask(query: Buffer): Promise<Buffer | undefined> {
    for (const server of await readServers(this.#options.resolvConf)) {
      const answer = await askOne(server, query);
      if (answer !== undefined) return answer;
    }
    return undefined;
  }

  /** One client's connection, joined to the first name server that accepts one. */
  async #join(client: Socket): Promise<void> {
    client.on("error", () => client.destroy());
    const deadline = setTimeout(() => client.destroy(), connectionMaxMs);
    client.once("close", () => clearTimeout(deadline));
    for (const server of await readServers(this.#options.resolvConf)) {
      const upstream = await connectTo(server);
      if (upstream === undefined) continue;
      upstream.on("error", () => client.destroy());
      client.once("close", () => upstream.destroy());
      client.pipe(upstream);
      upstream.pipe(client);
      return;
    }
    client.destroy();
  }
}

/** The host's name servers, as they are now. */
async function readServers(file = "/etc/resolv.conf"): Promise<string[]> {
  const text = await readFile(file, "utf8").catch(() => "");
  return parseServers(text.slice(0, resolvConfBytesMax));
}

/** The addresses of resolv.conf(5), as many as are used. */
export function parseServers(text: string): string[] {
  return text
    .split("\n")
    .flatMap((line) => /^\s*nameserver\s+([0-9A-Za-z:.%]+)/.exec(line)?.[1] ?? [])
    .filter((address) => isIP(address.replace(/%.*/, "")) !== 0)
    .slice(0, serversMax);
}

/** By a socket of its own, so that its port is not to be guessed. Undefined: no answer. */
async function askOne(server: string, query: Buffer): Promise<Buffer | undefined> {
  const socket = createSocket({ type: isIP(server) === 4 ? "udp4" : "udp6" });
  const { promise, resolve } = Promise.withResolvers<Buffer | undefined>();
  const timer = setTimeout(resolve, answerTimeoutMs, undefined);
  socket.on("error", () => resolve(undefined));
  socket.on("message", (answer) => {
    const isOurs = answer.length >= headerBytes && answer.readUInt16BE() === query.readUInt16BE();
    if (isOurs && answer.length <= datagramBytesMax) resolve(answer);
  });
  // Connected: the kernel takes answers of that server only, and tells when it is not there.
  socket.connect(namePort, server, () => socket.send(query, () => undefined));
  return await promise.finally(() => {
    clearTimeout(timer);
    socket.close();
  });
}

async function connectTo(server: string): Promise<Socket | undefined> {
  const socket = connect({ host: server, port: namePort, timeout: answerTimeoutMs });
  const { promise, resolve } = Promise.withResolvers<Socket | undefined>();
  socket.once("connect", () => resolve(socket));
  socket.once("timeout", () => socket.destroy());
  socket.once("error", () => undefined);
  socket.once("close", () => resolve(undefined));
  return await promise;
}
