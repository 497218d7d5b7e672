import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { exec, identify } from "@forkd/host/agent/guest.ts";
import { hold, requireHeld, thaw } from "@forkd/host/agent/hold.ts";
import { AgentSession } from "@forkd/host/agent/session.ts";
import { sleep } from "@forkd/host/lib/deadline.ts";
import { eventually } from "../helpers/eventually.ts";
import type { CaptureSubject } from "./capture-suite.ts";
import { type FrozenGuest, Guest, type GuestWorld } from "./captured-guest.ts";

const deadlineMs = 120_000;
/** How long a fork waits for its identity: an emulated one takes a while for its first tick. */
const lateMs = 1_500;
const holdMs = 60_000;
const ticksMin = 100;
const generation = 7_000;

/** Writes the generation of its guest down as often as it can, on and on. */
const ticker = "while :; do read -r g < /run/forkd/generation; echo $g; done >> /dev/shm/ticks";

async function sh(session: AgentSession, script: string): Promise<string> {
  const result = await exec(session, { args: ["sh", "-c", script], timeout_secs: 60, env: {} });
  assert.equal(result.exit_code, 0, result.stderr);
  return result.stdout;
}

async function ticks(session: AgentSession, of: string): Promise<number> {
  return Number(await sh(session, `grep -c -x ${of} /dev/shm/ticks || true`));
}

/** What a guest does between the first instant of a fork and its identity: on every engine. */
export function holdConformance(name: string, open: () => Promise<CaptureSubject>): void {
  describe(`guests that are held while engine ${name} captures them`, () => {
    let world: GuestWorld;
    let parent: Guest;
    let parentGeneration: string;

    before(async () => {
      const subject = await open();
      world = { ...subject, vms: [] };
      parent = await Guest.open(world, subject.frozen);
      parentGeneration = (await sh(parent.session, "cat /run/forkd/generation")).trim();
      await sh(parent.session, `sh -c '${ticker}' </dev/null >/dev/null 2>&1 &`);
      await eventually(
        async () => assert.ok((await ticks(parent.session, parentGeneration)) > ticksMin),
        { timeoutMs: deadlineMs, everyMs: 200 },
      );
    });
    after(() => Promise.all(world.vms.map((vm) => vm.stop())));

    /** Ticks under the parent's generation in a fork whose identity comes after a while. */
    const oldTicks = async (frozen: FrozenGuest, waitMs: number): Promise<number> => {
      const { vm } = await Guest.restore(world, frozen);
      const channel = await vm.openChannel();
      const session = AgentSession.attach(channel, {
        token: frozen.token,
        helloTimeoutMs: deadlineMs,
      });
      await vm.resume();
      await session.hello;
      await sleep(waitMs);
      const machineId = randomBytes(16).toString("hex");
      const proof = await identify(
        session,
        { generation, hostname: "late", machineId, net: null },
        deadlineMs,
      );
      assert.deepEqual(proof.reseeded.slice(0, 1), ["random"]);
      const own = String(generation);
      await eventually(async () => assert.ok((await ticks(session, own)) > 0), {
        timeoutMs: deadlineMs,
      });
      const count = await ticks(session, parentGeneration);
      await vm.stop();
      return count;
    };

    test("run nothing of their own in a fork before its identity, however late that is", async () => {
      let left = 0;
      const { frozen } = await parent.capture({
        beforeStop: () => hold(parent.session, holdMs),
        afterResume: async () => {
          left = await thaw(parent.session);
        },
      });
      requireHeld(left);
      const soon = await oldTicks(frozen, 0);
      assert.ok(soon > ticksMin);
      assert.equal(await oldTicks(frozen, lateMs), soon);
    });

    test("go on in the parent", async () => {
      const before = await ticks(parent.session, parentGeneration);
      await eventually(async () =>
        assert.ok((await ticks(parent.session, parentGeneration)) > before),
      );
    });

    test("would run otherwise, which this would notice", async () => {
      const { frozen } = await parent.capture();
      const soon = await oldTicks(frozen, 0);
      assert.ok((await oldTicks(frozen, lateMs)) > soon);
    });
  });
}
