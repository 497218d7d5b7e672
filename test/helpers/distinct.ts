import assert from "node:assert/strict";
import type { Client } from "@forkd/sdk";

/** What no two forks may have in common, by a name for messages: code that a warm runtime runs. */
export type Draws = Readonly<Record<string, string>>;

export const pythonDraws: Draws = {
  "os.urandom": "__import__('os').urandom(16).hex()",
  "random.random": "__import__('random').random()",
  "numpy.random": "__import__('numpy').random.rand()",
  "numpy.random.randint": "int(__import__('numpy').random.randint(0, 2**62))",
  uuid4: "str(__import__('uuid').uuid4())",
  secrets: "__import__('secrets').token_hex(16)",
  "host name": "__import__('socket').gethostname()",
  "machine id": "open('/etc/machine-id').read()",
  "the kernel's uuid": "open('/proc/sys/kernel/random/uuid').read()",
};

export const nodeDraws: Draws = {
  "crypto.randomBytes": "require('node:crypto').randomBytes(16).toString('hex')",
  "crypto.randomUUID": "require('node:crypto').randomUUID()",
  "crypto.randomInt": "require('node:crypto').randomInt(2 ** 48 - 1)",
  "Math.random": "Math.random()",
  "host name": "require('node:os').hostname()",
  "machine id": "require('node:fs').readFileSync('/etc/machine-id', 'utf8')",
};

const concurrencyMax = 8;

/** Collects draws of any sandboxes, over any number of calls, and compares all with all. */
export class Distinct {
  readonly #draws: Draws;
  readonly #seen = new Map<string, Map<string, string>>();
  #count = 0;

  constructor(draws: Draws) {
    this.#draws = draws;
  }

  get count(): number {
    return this.#count;
  }

  /** Draws once in each; fails the test when something was drawn before, in whatever sandbox. */
  async require(client: Client, ids: readonly string[]): Promise<void> {
    const queue = ids.values();
    const worker = async (): Promise<void> => {
      for (const id of queue) await this.#requireOne(client, id);
    };
    await Promise.all(Array.from({ length: concurrencyMax }, worker));
  }

  async #requireOne(client: Client, id: string): Promise<void> {
    this.#count += 1;
    for (const [name, value] of Object.entries(await this.#draw(client, id))) {
      const seen = this.#seen.get(name) ?? new Map<string, string>();
      const text = JSON.stringify(value);
      assert.notEqual(text, "null", `${name} in ${id}`);
      assert.equal(seen.get(text), undefined, `${name} of ${id}: ${text}`);
      this.#seen.set(name, seen.set(text, id));
    }
  }

  /** All in one eval, so that a hundred children are asked in seconds. */
  async #draw(client: Client, id: string): Promise<Record<string, unknown>> {
    const names = Object.keys(this.#draws);
    const body = { code: `[${Object.values(this.#draws).join(", ")}]`, timeout_secs: 60 };
    const { result_json: json, error } = await client.evalSandbox({ params: { id }, body });
    assert.equal(error, null, id);
    const values: unknown[] = JSON.parse(json ?? "null");
    assert.equal(values.length, names.length);
    return Object.fromEntries(names.map((name, index) => [name, values[index]]));
  }
}
