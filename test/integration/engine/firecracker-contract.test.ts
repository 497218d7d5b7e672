import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { endpoints } from "@forkd/host/engine/firecracker/contract.ts";
import { Guest } from "../../conformance/captured-guest.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { makeFirecrackerWorld } from "../../helpers/firecracker-guest.ts";
import { findSpec, Swagger } from "../../helpers/swagger.ts";

const specPath = findSpec();
const skip =
  skipWithout("root", "compiler", "guest-agent") ||
  (specPath === undefined &&
    "needs upstream's description of the API (FORKD_FIRECRACKER_SPEC=FILE.yaml)");

const dir = await mkdtemp(join(tmpdir(), "forkd-fcs-"));
after(() => rm(dir, { recursive: true, force: true }));

/** It takes the place of a named template. */
const unmade = ["cpuConfig"];

test("every request of a whole life is as upstream describes it", { skip }, async () => {
  await using world = await makeFirecrackerWorld({
    dir,
    engineOf: (fake) => fake.engine({ cpuTemplate: "T2" }),
  });
  const guest = await Guest.open(world, world.frozen);
  await guest.value("a = 1");
  await guest.capture();
  await guest.capture({ all: true });
  await guest.vm.pause();
  await guest.vm.resume();
  const spec = { process: guest.vm.process, workDir: guest.workDir };
  const adopted = await world.engine.adopt(spec);
  await guest.with(adopted).capture();
  await adopted.stop();
  const swagger = new Swagger(specPath ?? assert.fail());
  const seen = await world.fake.requests();
  assert.deepEqual(
    seen.flatMap((request) => swagger.problems(request)),
    [],
  );
  const made = new Set(seen.map(({ method, path }) => `${method} ${path}`));
  const expected = Object.entries(endpoints).filter(([name]) => !unmade.includes(name));
  for (const [, { method, path }] of expected) {
    const names = path.replace("{drive_id}", "root").replace("{iface_id}", "eth0");
    const concrete = `${method} ${names}`;
    assert.ok(made.has(concrete), `${concrete} was not made`);
  }
});
