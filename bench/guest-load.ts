import { ForkdError } from "@forkd/api";
import type { Client } from "@forkd/sdk";

/** Bytes that the writer changes at a time, and how long it rests in between. */
const stepBytes = 256 * 1024;
const restSecs = 0.005;
/** How often the ticking thread looks at the clock. */
const tickSecs = 0.001;

/** Runs in the guest's warm interpreter: a region to write, a writer and a ticking thread. */
const program = `
import threading, time, numpy
class forkd_load:
    gap = 0.0
    written = 0
def forkd_tick():
    last = time.monotonic()
    while True:
        time.sleep(${tickSecs})
        now = time.monotonic()
        forkd_load.gap = max(forkd_load.gap, now - last)
        last = now
def forkd_write(region):
    at, value = 0, 0
    while True:
        value = (value + 1) % 251
        region[at:at + ${stepBytes}] = value
        forkd_load.written += ${stepBytes}
        at = at + ${stepBytes} if at + 2 * ${stepBytes} <= len(region) else 0
        time.sleep(${restSecs})
def forkd_start(mib):
    forkd_load.region = numpy.random.randint(0, 255, mib * 1048576, dtype=numpy.uint8)
    threading.Thread(target=forkd_tick, daemon=True).start()
    if mib > 0:
        threading.Thread(target=forkd_write, args=(forkd_load.region,), daemon=True).start()
def forkd_take_gap():
    gap, forkd_load.gap = forkd_load.gap, 0.0
    return gap * 1000
`;

/** A guest that keeps `dirtyMib` of changed memory and goes on changing it. */
export class GuestLoad {
  readonly #client: Client;
  readonly #id: string;

  private constructor(client: Client, id: string) {
    this.#client = client;
    this.#id = id;
  }

  static async start(client: Client, id: string, dirtyMib: number): Promise<GuestLoad> {
    const load = new GuestLoad(client, id);
    await load.#eval(program);
    await load.#eval(`forkd_start(${dirtyMib})`);
    return load;
  }

  /** The longest that the ticking thread waited since the last call, ms of the guest's clock. */
  async takeGapMs(): Promise<number> {
    return Number(await this.#eval("forkd_take_gap()"));
  }

  async #eval(code: string): Promise<string | null> {
    const result = await this.#client.evalSandbox({
      params: { id: this.#id },
      body: { code, timeout_secs: 120 },
      timeoutMs: 130_000,
    });
    if (result.error !== null) throw new ForkdError("exec_failed", result.error);
    return result.result;
  }
}
