import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import type { SandboxInfo } from "@forkd/api";
import { ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { Distinct, type Draws, nodeDraws, pythonDraws } from "../helpers/distinct.ts";
import { blocksOf } from "../helpers/doc-examples.ts";
import { eventually } from "../helpers/eventually.ts";
import { requireClock } from "../helpers/guest-clock.ts";

/** Of all children together; so many live at one time that a small host stands it. */
const childrenMax = 100;
const batchMax = 25;
const dayMs = 24 * 60 * 60 * 1000;
const clockErrorMsMax = 50;

const skip = skipWithout("root", "qemu", "guest-agent");

/** A daemon over a data directory of its own. */
async function serve(kind: "python" | "node") {
  const baked = await ensureBaked(kind);
  const data = await makeDataDir("identity", baked);
  return { tag: baked.tag, data, daemon: await startDaemon(data.path) };
}

async function end(daemon: TestDaemon, data: DataDir): Promise<void> {
  await daemon.killAll();
  await data.assertNothingLeft();
  await data[Symbol.asyncDispose]();
}

const spawn = (daemon: TestDaemon, tag: string, n: number) =>
  daemon.client.createSandboxes({ body: { snapshot_tag: tag, n } });

async function kill(daemon: TestDaemon, children: readonly SandboxInfo[]): Promise<void> {
  await Promise.all(children.map(({ id }) => daemon.client.deleteSandbox({ params: { id } })));
}

async function sh(daemon: TestDaemon, id: string, script: string): Promise<string> {
  const body = { args: ["/bin/sh", "-euc", script], timeout_secs: 60 };
  const { stdout, stderr, exit_code } = await daemon.client.execSandbox({ params: { id }, body });
  assert.equal(exit_code, 0, `${script}: ${stderr}`);
  return stdout;
}

interface OperationLine {
  readonly operation?: string;
  readonly sandbox_id?: string;
  readonly outcome?: string;
  readonly principal?: string;
  readonly identity?: SandboxInfo["identity"];
}

async function operationsOf(daemon: TestDaemon): Promise<OperationLine[]> {
  const lines = (await readFile(daemon.auditLog, "utf8")).trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line)).filter(({ operation }) => operation !== undefined);
}

async function requireDistinct(kind: "python" | "node", draws: Draws, count: number) {
  const { tag, data, daemon } = await serve(kind);
  try {
    const distinct = new Distinct(draws);
    const ids = new Set<string>();
    while (distinct.count < count) {
      const children = await spawn(daemon, tag, Math.min(batchMax, count - distinct.count));
      await distinct.require(
        daemon.client,
        children.map(({ id }) => id),
      );
      for (const { id, identity } of children) {
        ids.add(id);
        assert.equal(identity?.crng_reseeded, true);
        assert.ok(identity.reseeded.length > 0, "no generator of the runtime was reseeded");
      }
      await kill(daemon, children);
    }
    assert.equal(ids.size, count);
    await requireAudited(daemon, ids);
  } finally {
    await end(daemon, data);
  }
}

async function requireAudited(daemon: TestDaemon, ids: ReadonlySet<string>): Promise<void> {
  await eventually(async () => {
    const lines = await operationsOf(daemon);
    for (const operation of ["spawn", "kill"]) {
      const audited = lines.filter((line) => line.operation === operation);
      assert.deepEqual(new Set(audited.map((line) => line.sandbox_id)), ids);
      assert.ok(
        audited.every(({ outcome, principal }) => `${outcome} ${principal}` === "ok token"),
      );
    }
    const proofs = lines.filter((line) => line.operation === "spawn").map((line) => line.identity);
    assert.equal(new Set(proofs.map((proof) => proof?.machine_id)).size, ids.size);
    assert.ok(proofs.every((proof) => proof?.crng_reseeded && proof.entropy_bytes >= 32));
  });
}

describe("forks are one of their kind", { skip, timeout: 900_000 }, () => {
  test(`${childrenMax} children of a Python parent`, () =>
    requireDistinct("python", pythonDraws, childrenMax));

  test("twenty grandchildren of one child, and the child itself", async () => {
    const { tag, data, daemon } = await serve("python");
    try {
      const [child = assert.fail()] = await spawn(daemon, tag, 1);
      const params = { id: child.id };
      await daemon.client.branchSandbox({ params, body: { tag: "middle", mode: "diff" } });
      const grandchildren = await spawn(daemon, "middle", 20);
      const ids = [child, ...grandchildren].map(({ id }) => id);
      await new Distinct(pythonDraws).require(daemon.client, ids);
      const generation = (child.identity?.generation ?? 0) + 1;
      for (const { identity } of grandchildren) assert.equal(identity?.generation, generation);
    } finally {
      await end(daemon, data);
    }
  });

  test("twelve children of a Node parent", () => requireDistinct("node", nodeDraws, 12));
});

describe("a snapshot that is a day old, with hooks", { skip, timeout: 600_000 }, () => {
  let data: DataDir;
  let daemon: TestDaemon;
  let children: SandboxInfo[];

  before(async () => {
    const served = await serve("python");
    ({ data, daemon } = served);
    const [parent = assert.fail()] = await spawn(daemon, served.tag, 1);
    await prepare(parent.id);
    const params = { id: parent.id };
    await daemon.client.branchSandbox({ params, body: { tag: "yesterday", mode: "diff" } });
    await kill(daemon, [parent]);
    children = await spawn(daemon, "yesterday", 4);
  });
  after(async () => {
    if (daemon !== undefined) await end(daemon, data);
  });

  /** The documented hook and applications, and a clock that is a day behind. */
  async function prepare(id: string): Promise<void> {
    const of = (language: string): string =>
      blocksOf("fork-identity.md").find((block) => block.language === language)?.text ??
      assert.fail(language);
    const files: Readonly<Record<string, string>> = {
      "/etc/forkd/fork.d/50-app": of("sh"),
      "/etc/forkd/fork.d/60-broken": "#!/bin/sh\necho cannot; exit 3\n",
      "/etc/forkd/fork.d/70-not-executable": "#!/bin/sh\ntouch /run/wrong\n",
      "/root/app.py": `${of("python")}\n${pythonLoop}`,
      "/root/app.mjs": `${of("js")}\n${nodeLoop}`,
    };
    for (const [path, text] of Object.entries(files)) {
      const args = ["/bin/sh", "-euc", `mkdir -p "$(dirname ${path})"; cat > ${path}`];
      await daemon.client.execSandbox({ params: { id }, body: { args, stdin: text } });
    }
    await sh(daemon, id, "chmod +x /etc/forkd/fork.d/[56]*");
    await sh(daemon, id, "setsid python3 /root/app.py > /run/py.log 2>&1 &");
    await sh(daemon, id, "setsid node /root/app.mjs > /run/node.log 2>&1 &");
    await eventually(() => sh(daemon, id, "test -s /run/draw && test -s /run/key"), {
      timeoutMs: 60_000,
    });
    await sh(daemon, id, "date -s @$(( $(date +%s) - 86400 ))");
  }

  test("their clocks are right, and the attestation tells how wrong they were", async () => {
    for (const { id, identity } of children) {
      const skew = identity?.clock_skew_before_ms ?? 0;
      assert.ok(skew < -dayMs && skew > -dayMs - 10 * 60_000, `${skew}`);
      assert.ok(Math.abs(identity?.clock_skew_after_ms ?? dayMs) < clockErrorMsMax);
      await requireClock(daemon.client, id, clockErrorMsMax);
    }
  });

  test("hooks have run, in order; a failed one is told", async () => {
    const keys = new Set<string>();
    for (const { id, identity } of children) {
      const told = `a new key for generation ${identity?.generation}\n`;
      assert.deepEqual(identity?.hooks, [
        { name: "50-app", ok: true, detail: told },
        { name: "60-broken", ok: false, detail: "exit code 3: cannot\n" },
      ]);
      keys.add(await sh(daemon, id, "test ! -e /run/wrong; cat /run/app.key"));
      const generation = await sh(daemon, id, "cat /run/forkd/generation");
      assert.equal(generation, `${identity.generation}\n`);
    }
    assert.equal(keys.size, children.length);
  });

  test("applications that look at the generation have values of their own", async () => {
    for (const file of ["/run/draw", "/run/key"]) {
      const values = await Promise.all(
        children.map(({ id, identity }) =>
          eventually(
            async () => {
              const [generation, value = ""] = (await sh(daemon, id, `cat ${file}`)).split(" ");
              assert.equal(generation, String(identity?.generation));
              return value;
            },
            { timeoutMs: 30_000 },
          ),
        ),
      );
      assert.equal(new Set(values).size, children.length, `${file}: ${values}`);
    }
  });
});

/** What the documented programs would be used by; each writes a draw and the generation it knows. */
const pythonLoop = `
import time
while True:
    draw = rng.get().getrandbits(64)
    with open("/run/draw.new", "w") as file:
        file.write(f"{generation()} {draw}")
    os.rename("/run/draw.new", "/run/draw")
    time.sleep(0.1)
`;
const nodeLoop = `
import { readFileSync, renameSync, writeFileSync } from "node:fs";
let known = "";
let last = key;
setInterval(() => {
  const generation = readFileSync("/run/forkd/generation", "utf8").trim();
  if (key !== last || known === "") known = generation;
  last = key;
  writeFileSync("/run/key.new", known + " " + key);
  renameSync("/run/key.new", "/run/key");
}, 100);
`;
