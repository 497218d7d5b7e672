/** Every program in docs/sdk.md and docs/mcp.md prints what the document says. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Baked, ensureBaked, repoRoot } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { blocksOf, ExampleDir, examplesOf, runExample } from "../helpers/doc-examples.ts";
import { stdioSession, textOf } from "../helpers/mcp.ts";

describe("examples", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("examples", baked);
    daemon = await startDaemon(data.path);
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  for (const document of ["sdk.md", "mcp.md"]) {
    describe(document, () => {
      const examples = examplesOf(document);
      let dir: ExampleDir;
      let files: string[];

      before(() => {
        dir = new ExampleDir(document);
        files = examples.map((example, index) => dir.write(index, example, baked.tag));
      });
      after(() => dir?.[Symbol.dispose]());

      test("every program passes the type checker", async () => {
        assert.ok(examples.length > 0);
        const { code, stdout } = await dir.check();
        assert.equal(code, 0, stdout);
      });

      for (const [index, { heading, prints }] of examples.entries()) {
        test(heading, async () => {
          const env = { FORKD_URL: daemon.url, FORKD_TOKEN: daemon.token };
          const { code, stdout, stderr } = await runExample(files[index] ?? "", env);
          assert.deepEqual([stdout, code], [prints, 0], stderr);
          assert.deepEqual(await daemon.client.listSandboxes(), []);
        });
      }
    });
  }

  test("the server that docs/mcp.md tells clients to start", async () => {
    const block = blocksOf("mcp.md").find(({ language }) => language === "json");
    const { forkd } = JSON.parse(block?.text ?? "").mcpServers;
    assert.deepEqual(Object.keys(forkd), ["command", "env"]);
    await using mcp = await stdioSession(daemon, { command: join(repoRoot, "bin", forkd.command) });
    assert.match(textOf(await mcp.call("list_snapshots")), new RegExp(baked.tag));
    const { tools } = await mcp.client.listTools();
    const table = readFileSync(join(repoRoot, "docs/mcp.md"), "utf8");
    assert.deepEqual(
      tools.map(({ name }) => name).filter((name) => !table.includes(`| \`${name}\` |`)),
      [],
      "tools that docs/mcp.md does not name",
    );
  });
});
