import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { answerBody } from "@forkd/host/daemon/answer-body.ts";
import fc from "fast-check";
import { TestServer } from "../../helpers/test-server.ts";

const large = 100_000;

async function written(answer: object): Promise<string> {
  const body = answerBody(answer);
  assert.ok(body instanceof Readable);
  return await text(body);
}

test("an answer in pieces is the same JSON", async () => {
  const tile = fc.string({ unit: "binary", minLength: 1, maxLength: 50 });
  await fc.assert(
    fc.asyncProperty(tile, fc.nat(40), fc.jsonValue(), async (tiled, shift, other) => {
      const stdout = "x".repeat(shift) + tiled.repeat(Math.ceil(large / tiled.length));
      const answer = { other, stdout, nothing: null, missing: undefined, stderr: "" };
      assert.equal(
        JSON.stringify(JSON.parse(await written(answer))),
        JSON.stringify(JSON.parse(JSON.stringify(answer))),
      );
    }),
    { numRuns: 40 },
  );
});

test("pairs of surrogates survive every cut", async () => {
  for (const shift of [0, 1]) {
    const stdout = "x".repeat(shift) + "\u{1f600}".repeat(large);
    assert.equal(JSON.parse(await written({ stdout })).stdout, stdout);
  }
});

test("short answers, lists and nothing are sent as they are", () => {
  for (const answer of [undefined, null, "text", [{ stdout: "x".repeat(large) }], { a: 1 }]) {
    assert.equal(answerBody(answer), answer);
  }
});

test("others have their turn while a large answer is written", async () => {
  const server = new TestServer();
  const [{ id }] = (
    await server.call("createSandboxes", { body: { snapshot_tag: "base" } })
  ).json();
  const stdout = "\0".repeat(4 * 1024 * 1024);
  const plain = await server.service.exec(id, { args: [] });
  server.service.exec = async () => ({ ...plain, stdout });
  let turns = 0;
  let isOver = false;
  const tick = (): void => {
    turns += 1;
    if (!isOver) setImmediate(tick);
  };
  tick();
  const answer = await server.call("execSandbox", { params: { id }, body: { args: ["x"] } });
  isOver = true;
  assert.match(String(answer.headers["content-type"]), /^application\/json/);
  assert.equal(answer.json().stdout, stdout);
  assert.ok(turns > 200, `${turns} turns`);
});
