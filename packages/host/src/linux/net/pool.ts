import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, rmdir, statfs } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import { isErrno, replaceFile } from "../../lib/atomic.ts";
import { childRules, type Tenant } from "./child-rules.ts";
import { loadRules } from "./enter.ts";
import { type ChildNet, childNet, childNumber } from "./plan.ts";

/** Beside the namespaces themselves: both are gone when the host restarts. */
export const poolDir = "/run/forkd/netns";

/** statfs(2): what a name of a namespace is mounted on while it exists. */
const nsfsMagic = 0x6e73_6673;
const tokenBytesMax = 4096;
/** Zones of connection tracking have 16 bits; 0 is what everybody else is in. */
const zonesMax = 65_535;

const tokenSchema = z.object({
  number: z.int(),
  net4: z.string().regex(/^\d{1,3}\.\d{1,3}$/),
  /** How many tenants it has had. */
  used: z.int().min(0),
  /** A random name of this very namespace: another one may get its name. */
  made: z.string().regex(/^[0-9a-f]{16}$/),
});
type Token = z.infer<typeof tokenSchema>;

/** A namespace that somebody holds. */
export interface HeldNetns {
  /** Names the claim on this host; see {@link NetnsPool.release}. */
  readonly path: string;
  readonly child: ChildNet;
  readonly zone: number;
}

/**
 * The namespaces of this host that are ready to use. Each is a file, in `free` or, while it is
 * somebody's, in `held` under a name that says whose: one rename takes it, so two that want the
 * same cannot both have it, and whoever knows the name can give it back.
 */
export class NetnsPool {
  readonly #dir: string;
  readonly #free: string;
  readonly #held: string;
  /** What is under each name now: its token's `made`. The kernel gives inodes again. */
  readonly #made: string;

  constructor(dir: string = poolDir) {
    this.#dir = dir;
    this.#free = join(dir, "free");
    this.#held = join(dir, "held");
    this.#made = join(dir, "made");
  }

  /** Numbers of those that are as they were made, free or held. */
  async whole(): Promise<ReadonlySet<number>> {
    const held = (await this.held()).map(({ path }) => path);
    const free = (await listDir(this.#free)).map((name) => join(this.#free, name));
    const found = new Set<number>();
    for (const path of [...free, ...held]) {
      const token = await readToken(path).catch(() => undefined);
      if (token !== undefined && (await this.#isWhole(token))) found.add(token.number);
    }
    return found;
  }

  /** Numbers of the free ones, the least first. */
  async free(): Promise<number[]> {
    const names = await listDir(this.#free);
    return names.flatMap((name) => childNumber(name) ?? []).sort((a, b) => a - b);
  }

  /** Those that are held: the number and who holds it. */
  async held(): Promise<{ readonly number: number; readonly holder: string; path: string }[]> {
    const names = await listDir(this.#held);
    return names.flatMap((name) => {
      const claim = parseClaim(name);
      return claim === undefined ? [] : [{ ...claim, path: join(this.#held, name) }];
    });
  }

  /** What {@link take} will make: to be written down before. */
  claimPath(child: string, holder: string): string {
    return join(this.#held, `${child}.${holder}`);
  }

  /** Undefined when somebody else was faster. */
  async take(child: string, holder: string): Promise<HeldNetns | undefined> {
    const path = this.claimPath(child, holder);
    try {
      await rename(join(this.#free, child), path);
    } catch (error) {
      if (isErrno(error, "ENOENT")) return undefined;
      throw error;
    }
    const token = await readToken(path);
    const zone = (token.used % zonesMax) + 1;
    return { path, child: childNet(token.number, token.net4), zone };
  }

  /** Makes one known that is complete. */
  async add(number: number, net4: string): Promise<void> {
    for (const dir of [this.#free, this.#held, this.#made]) {
      await mkdir(dir, { recursive: true, mode: 0o700 });
    }
    const { name } = childNet(number, net4);
    const made = randomBytes(8).toString("hex");
    await replaceFile(join(this.#made, name), made);
    await writeToken(join(this.#free, name), { number, net4, used: 0, made });
  }

  /** Removes its directories, as far as they are empty. */
  async forget(): Promise<void> {
    for (const dir of [this.#free, this.#held, this.#made, this.#dir]) {
      await rmdir(dir).catch((error: unknown) => {
        if (!isErrno(error, "ENOENT") && !isErrno(error, "ENOTEMPTY")) throw error;
      });
    }
  }

  /** Nobody takes it from now on; false when it is not free. */
  async remove(child: string): Promise<boolean> {
    try {
      await rm(join(this.#free, child));
      await rm(join(this.#made, child), { force: true });
      return true;
    } catch (error) {
      if (isErrno(error, "ENOENT")) return false;
      throw error;
    }
  }

  /**
   * Gives one back, with rules that let nothing pass. Right for a claim that was never taken, or
   * given back already. A path that is no claim is refused: it came from a file.
   */
  async release(path: string): Promise<void> {
    const claim = parseClaim(path.slice(this.#held.length + 1));
    if (claim === undefined || !path.startsWith(`${this.#held}/`)) {
      throw new ForkdError("internal", `${path} is no claim on a network namespace`);
    }
    const token = await readToken(path).catch((error: unknown) => {
      if (isErrno(error, "ENOENT")) return undefined;
      throw error;
    });
    if (token === undefined) return;
    if (!(await this.#isWhole(token))) {
      await rm(path, { force: true });
      return;
    }
    const child = childNet(token.number, token.net4);
    await installRules(child, null);
    // First the count: its next tenant must not get the zone of this one.
    await writeToken(path, { ...token, used: token.used + 1 });
    await rename(path, join(this.#free, child.name));
  }

  async #isWhole({ number, net4, made }: Token): Promise<boolean> {
    const { name, netnsFile } = childNet(number, net4);
    const now = await readFile(join(this.#made, name), "utf8").catch(() => undefined);
    return now === made && (await isNetns(netnsFile));
  }
}

/** Lets the tenant's traffic pass, or nobody's, from one instant on. */
export async function installRules(child: ChildNet, tenant: Tenant | null): Promise<void> {
  await loadRules(childRules(child, tenant), child.netnsFile);
}

/** Whether a file names a namespace that exists. */
export async function isNetns(file: string): Promise<boolean> {
  const stats = await statfs(file).catch(() => undefined);
  return stats?.type === nsfsMagic;
}

/** `CHILD.HOLDER`; a child's name has no dot. */
function parseClaim(name: string): { number: number; holder: string } | undefined {
  const [, child = "", holder = ""] = /^([^./]+)\.([\w.-]{1,128})$/.exec(name) ?? [];
  const number = childNumber(child);
  return number === undefined ? undefined : { number, holder };
}

async function readToken(path: string): Promise<Token> {
  const text = await readFile(path, "utf8");
  const parsed = tokenSchema.safeParse(text.length > tokenBytesMax ? null : JSON.parse(text));
  if (parsed.success) return parsed.data;
  throw new ForkdError("state_corrupt", `${path} is damaged`, {
    hint: "make the namespaces again: sudo forkd netns teardown --yes, then setup N",
  });
}

async function writeToken(path: string, token: Token): Promise<void> {
  await replaceFile(path, JSON.stringify(token));
}

async function listDir(dir: string): Promise<string[]> {
  return await readdir(dir).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
}
