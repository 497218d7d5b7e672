import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { NetnsPool } from "@forkd/host/linux/net/pool.ts";
import { makeTmpDir } from "../../../helpers/tmp.ts";

const holder = "0123456789ab.sb-1-2";

describe("the pool of namespaces", () => {
  test("of many that want the same, one gets it", async () => {
    await using dir = await makeTmpDir("pool");
    const pool = new NetnsPool(dir.path);
    await pool.add(3, "10.43");
    const others = Array.from({ length: 20 }, (_, at) => `0123456789ab.sb-${at}`);
    const takes = others.map((other) => new NetnsPool(dir.path).take("forkd-child-3", other));
    const taken = (await Promise.all(takes)).filter((held) => held !== undefined);
    assert.equal(taken.length, 1);
    assert.equal(taken[0]?.child.name, "forkd-child-3");
    assert.deepEqual(await pool.free(), []);
    assert.equal((await pool.held()).length, 1);
  });

  test("the free ones come by their numbers", async () => {
    await using dir = await makeTmpDir("pool");
    const pool = new NetnsPool(dir.path);
    for (const number of [10, 2, 1]) await pool.add(number, "10.43");
    assert.deepEqual(await pool.free(), [1, 2, 10]);
    assert.ok(await pool.remove("forkd-child-2"));
    assert.ok(!(await pool.remove("forkd-child-2")));
    assert.deepEqual(await pool.free(), [1, 10]);
  });

  test("a claim whose namespace is gone is forgotten, one that never was is no failure", async () => {
    await using dir = await makeTmpDir("pool");
    const pool = new NetnsPool(dir.path);
    await pool.add(997, "10.43");
    const held = (await pool.take("forkd-child-997", holder)) ?? assert.fail();
    assert.equal(held.path, pool.claimPath("forkd-child-997", holder));
    await pool.release(held.path);
    assert.deepEqual(await readdir(join(dir.path, "held")), []);
    assert.deepEqual(await pool.free(), []);
    await pool.release(held.path);
  });

  test("what is no claim is never released", async () => {
    await using dir = await makeTmpDir("pool");
    const pool = new NetnsPool(dir.path);
    const held = join(dir.path, "held");
    for (const path of ["/etc/passwd", `${held}/../x.y`, `${held}/forkd-child-0.${holder}`, held]) {
      await assert.rejects(pool.release(path), /is no claim/, path);
    }
  });
});
