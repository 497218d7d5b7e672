/** From images of all kinds to guests that run them: a real registry, real VMs. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { missing, staticBusybox } from "../helpers/capabilities.ts";
import { skipWithout } from "../helpers/capability.ts";
import { type CliEnd, forkd } from "../helpers/cli.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { makeOciImage, pushImage } from "../helpers/oci-fixture.ts";
import { startRegistry, type TestRegistry } from "../helpers/registry.ts";
import { type TarMember, writeTar } from "../helpers/tar-writer.ts";

const busybox = staticBusybox();
const skip =
  skipWithout("root", "qemu", "guest-agent", "docker-registry") ||
  missing({ programs: ["skopeo", "umoci"] }) ||
  (busybox === undefined && "needs a static busybox (apt-get install busybox-static)");

const applets = ["sh", "cat", "echo", "httpd", "id", "ls", "ps", "sed", "sleep", "wget"];

/** A root without libraries and without bash, as in an Alpine image but smaller. */
async function tinyRoot(): Promise<TarMember[]> {
  return [
    { name: "bin/", type: "dir", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: await readFile(busybox ?? "") },
    ...applets.map(
      (name): TarMember => ({ name: `bin/${name}`, type: "symlink", linkTo: "busybox" }),
    ),
    { name: "etc/", type: "dir", mode: 0o755 },
    { name: "etc/passwd", data: "root:x:0:0::/root:/bin/sh\nada:x:1234:2345::/home/u:/bin/sh\n" },
    { name: "etc/group", data: "root:x:0:\nada:x:2345:\n" },
    { name: "www/", type: "dir", mode: 0o755 },
    { name: "www/page", mode: 0o644, data: "served by the parent\n" },
  ];
}

const homeLayer: readonly TarMember[] = [
  { name: "home/", type: "dir", mode: 0o755 },
  { name: "home/u/", type: "dir", mode: 0o700, uid: 1234, gid: 2345 },
  { name: "home/u/own", mode: 0o600, uid: 1234, gid: 2345, data: "mine\n" },
];

/** Upstream's bridge in shell: ready first, then one answer a line; it counts what it was asked. */
const bridgeScript = `n=0
echo '{"ready":true}'
while read -r request; do
  id=$(echo "$request" | sed 's/.*"id": *"\\([^"]*\\)".*/\\1/')
  n=$((n + 1))
  case "$request" in
    *fail*) echo "{\\"id\\":\\"$id\\",\\"error\\":\\"it failed\\",\\"stack\\":\\"at bridge\\"}" ;;
    *) echo "{\\"id\\":\\"$id\\",\\"result\\":{\\"asked\\":$n,\\"greeting\\":\\"$GREETING\\"}}" ;;
  esac
done
`;

const recipeLayer: readonly TarMember[] = [
  { name: "bridge.sh", mode: 0o755, data: bridgeScript },
  {
    name: "etc/forkd-recipe.env",
    data: [
      "# a recipe",
      "FORKD_AGENT_LANG=node",
      'FORKD_WARMUP_CMD="/bin/sh /bridge.sh"',
      "GREETING='from the recipe'",
      "",
    ].join("\n"),
  },
];

describe("images", { skip }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;
  let registry: TestRegistry;
  let tiny: string;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("images", baked, ["kernels"]);
    registry = await startRegistry(join(data.path, "registry"));
    tiny = join(data.path, "tiny.tar");
    await writeFile(tiny, writeTar(await tinyRoot()));
    daemon = await startDaemon(data.path);
  });
  after(async () => {
    await daemon?.killAll();
    await registry?.[Symbol.asyncDispose]();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const cli = (...args: readonly string[]): Promise<CliEnd> => forkd(args, { dataDir: data.path });

  /** Bakes a tag and forks one child of it, which the daemon keeps. */
  async function bakeAndFork(tag: string, ref: string, ...words: string[]): Promise<string> {
    const small = ["--mem-size-mib", "128"];
    const bake = await cli("from-image", ref, "--tag", tag, ...small, ...words);
    assert.equal(bake.code, 0, bake.stderr);
    assert.equal(bake.stdout, `${tag}\n`);
    const [child] = await daemon.client.createSandboxes({ body: { snapshot_tag: tag, n: 1 } });
    return child?.id ?? assert.fail();
  }

  async function sh(id: string, script: string): Promise<string> {
    const answer = await daemon.client.execSandbox({
      params: { id },
      body: { args: ["/bin/sh", "-c", script], timeout_secs: 30, env: {} },
    });
    assert.equal(answer.exit_code, 0, answer.stderr);
    return answer.stdout;
  }

  test("of a registry: environment, user and directory are kept", async () => {
    const layout = join(data.path, "layout");
    await makeOciImage(layout, "app", [await tinyRoot(), homeLayer]);
    await pushImage(`oci:${layout}:app`, `${registry.host}/team/app:1.0`);
    const ref = `docker://${registry.host}/team/app:1.0`;
    const id = await bakeAndFork("from-registry", ref);
    const said = await sh(id, 'echo "$GREETING"; id -u; id -g; pwd; cat own; echo "$HOME"');
    assert.equal(said, "hello = world\n1234\n2345\n/home/u\nmine\n/home/u\n");
    await assert.rejects(sh(id, "echo x > /etc/passwd"), /denied/);
    const snapshots = await daemon.client.listSnapshots();
    assert.equal(snapshots.find(({ tag }) => tag === "from-registry")?.image, ref);
    const ran = await cli("run", "--image", ref, "--", "sh", "-c", "id -un; exit 7");
    assert.deepEqual([ran.stdout, ran.code], ["ada\n", 7], ran.stderr);
  });

  test("what a registry does not have, or that does not answer", async () => {
    const bake = (ref: string) => cli("from-image", ref, "--tag", "never", "--json");
    const absent = await bake(`docker://${registry.host}/team/absent:1.0`);
    assert.equal(JSON.parse(absent.stderr).code, "image_not_found", absent.stderr);
    const down = await bake("docker://127.0.0.1:9/team/app:1.0");
    assert.equal(JSON.parse(down.stderr).code, "registry_unreachable", down.stderr);
  });

  test("run: an image with nothing but busybox, twice", async () => {
    const run = () => cli("run", "--image", `tar:${tiny}`, "--", "sh", "-c", "ls /bin/bash /lib");
    const first = await run();
    assert.equal(first.code, 1, first.stderr);
    assert.match(first.stderr, /\/bin\/bash: No such file[\s\S]*\/lib: No such file/);
    const second = await run();
    assert.equal(second.code, 1);
    assert.doesNotMatch(second.stderr, /booting a parent/);
  });

  test("run: input errors, a signal, the deadline", async () => {
    const run = (...words: string[]) => cli("run", "--image", `tar:${tiny}`, ...words);
    assert.equal((await run("--", "sh", "-c", "kill -9 $$")).code, 137);
    const late = await run("--timeout-secs", "1", "--", "sleep", "60");
    assert.equal(late.code, 124, late.stderr);
    const none = await run("--", "/no/such/program");
    assert.equal(none.code, 1);
    assert.match(none.stderr, /^error: .*\/no\/such\/program/m);
  });

  test("a built image is used again, with --refresh it is built again", async () => {
    const never = ["--warm-cmd", "exit 3", "--ready", "file:/run/never"];
    const bake = (...words: readonly string[]) =>
      cli("from-image", `tar:${tiny}`, "--tag", "never", ...never, ...words);
    assert.match((await bake()).stderr, /using the image built before/);
    const refreshed = await bake("--refresh");
    assert.match(refreshed.stderr, /writing the root image[\s\S]*exit code 3/);
  });

  test("--warm-cmd is warm when a file appears", async () => {
    const command = "sleep 1; echo yes > /run/warm; exec sleep 1000";
    const words = ["--warm-cmd", command, "--ready", "file:/run/warm"];
    const id = await bakeAndFork("warm-file", `tar:${tiny}`, ...words);
    assert.match(await sh(id, "cat /run/warm; ps"), /^yes\n[\s\S]*sleep 1000/);
  });

  test("--warm-cmd is warm when it says so", async () => {
    const command = "echo starting; sleep 1; echo it is now serving; exec sleep 1000";
    const words = ["--warm-cmd", command, "--ready", "line:now serving"];
    const id = await bakeAndFork("warm-line", `tar:${tiny}`, ...words);
    assert.match(await sh(id, "ps"), /sleep 1000/);
  });

  test("--warm-cmd is warm when its port opens", async () => {
    const words = ["--warm-cmd", "sleep 1; exec httpd -f -p 8080 -h /www", "--ready", "tcp:8080"];
    const id = await bakeAndFork("warm-tcp", `tar:${tiny}`, ...words);
    assert.equal(await sh(id, "wget -q -O - http://127.0.0.1:8080/page"), "served by the parent\n");
  });

  test("a recipe of the image is followed, each child goes on by itself", async () => {
    const recipe = join(data.path, "recipe.tar");
    await writeFile(recipe, writeTar([...(await tinyRoot()), ...recipeLayer]));
    const ids = [await bakeAndFork("recipe", `tar:${recipe}`)];
    const more = await daemon.client.createSandboxes({ body: { snapshot_tag: "recipe", n: 1 } });
    ids.push(...more.map(({ id }) => id));
    const evaluate = (id: string, code: string) =>
      daemon.client.evalSandbox({ params: { id }, body: { code, timeout_secs: 30 } });
    for (const id of ids) {
      for (const asked of [1, 2]) {
        const { result_json: json, error } = await evaluate(id, "anything");
        assert.equal(error, null);
        assert.deepEqual(JSON.parse(json ?? ""), { asked, greeting: "from the recipe" });
      }
      const failed = await evaluate(id, "fail");
      assert.match(failed.error ?? "", /it failed/);
    }
  });
});

describe("a warm Node", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let data: DataDir;
  let daemon: TestDaemon;
  let ids: string[];

  before(async () => {
    const baked = await ensureBaked("node");
    data = await makeDataDir("node", baked);
    daemon = await startDaemon(data.path);
    const body = { snapshot_tag: baked.tag, n: 2 };
    ids = (await daemon.client.createSandboxes({ body })).map(({ id }) => id);
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const evaluate = (code: string, id = ids[0] ?? assert.fail()) =>
    daemon.client.evalSandbox({ params: { id }, body: { code, timeout_secs: 30 } });

  test("values, state, await, output, failure", async () => {
    const two = await evaluate("1+1");
    assert.deepEqual([two.result, two.result_json, two.exit_code], ["2", "2", 0]);
    await evaluate("const kept = { list: [1, 'ä'] }");
    assert.deepEqual(JSON.parse((await evaluate("kept")).result_json ?? ""), { list: [1, "ä"] });
    assert.equal((await evaluate("await Promise.resolve(7)")).result_json, "7");
    assert.equal((await evaluate("console.log('said')")).stdout, "said\n");
    const failed = await evaluate("null.x");
    assert.equal(failed.exit_code, 1);
    assert.match(failed.error ?? "", /TypeError/);
  });

  test("children draw their own random numbers", async () => {
    const draws = ["Math.random()", "require('crypto').randomUUID()", "process.version"];
    const [random, uuid, version] = await Promise.all(
      draws.map(async (draw) => {
        const answers = await Promise.all(ids.map((id) => evaluate(draw, id)));
        return new Set(answers.map(({ result_json: json, error }) => json ?? error)).size;
      }),
    );
    assert.deepEqual([random, uuid, version], [2, 2, 1]);
  });
});
