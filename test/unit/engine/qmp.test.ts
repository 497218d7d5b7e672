import assert from "node:assert/strict";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { Qmp } from "@forkd/host/engine/qemu/qmp.ts";

/** QEMU's end of a QMP connection, played by a test. */
function peer(onCommand: (command: { execute: string; id: number }) => void = () => undefined) {
  const socket = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      for (const line of String(chunk).split("\n")) if (line !== "") onCommand(JSON.parse(line));
      done();
    },
  });
  const say = (message: object): void => {
    socket.push(`${JSON.stringify(message)}\r\n`);
  };
  return { socket, say };
}

const stamp = { seconds: 1, microseconds: 2 };

test("answers find their commands, whatever comes between", async () => {
  const { socket, say } = peer(({ execute, id }) => {
    say({ event: "RESUME", timestamp: stamp });
    say({ return: { of: execute }, id });
  });
  const qmp = new Qmp(socket);
  say({ QMP: { version: {}, capabilities: [] } });
  const answers = await Promise.all([qmp.execute("a"), qmp.execute("b")]);
  assert.deepEqual(answers, [{ of: "a" }, { of: "b" }]);
});

test("late answers to a client that was there before are not taken", async () => {
  const { socket, say } = peer(({ execute, id }) => {
    say({ return: { late: 1 } });
    say({ return: {}, id: "guard" });
    say({ error: { class: "GenericError", desc: "late" } });
    say({ return: { of: execute }, id });
  });
  assert.deepEqual(await new Qmp(socket).execute("a"), { of: "a" });
});

test("an error is QEMU's own words", async () => {
  const { socket, say } = peer(({ id }) =>
    say({ id, error: { class: "GenericError", desc: "no" } }),
  );
  await assert.rejects(new Qmp(socket).execute("x"), { code: "engine_failed", message: "no" });
});

test("an event is awaited by what it says", async () => {
  const { socket, say } = peer();
  const qmp = new Qmp(socket);
  const done = qmp.waitFor(({ data }) => data["status"] === "completed", 1000, "it");
  say({ event: "MIGRATION", data: { status: "active" }, timestamp: stamp });
  say({ event: "MIGRATION", data: { status: "completed" }, timestamp: stamp });
  assert.equal((await done).data["status"], "completed");
});

test("a connection that closes fails all that waits and all that comes", async () => {
  const { socket } = peer();
  const qmp = new Qmp(socket);
  const waiting = [qmp.execute("x"), qmp.waitFor(() => true, 1000, "it")];
  socket.destroy();
  for (const wait of waiting) await assert.rejects(wait, { code: "engine_failed" });
  await assert.rejects(qmp.execute("y"), { code: "engine_failed" });
});

test("what is no QMP ends the connection", async () => {
  for (const noise of ["hello\n", '{"what": 1}\n', "x".repeat(5 * 1024 * 1024)]) {
    const { socket } = peer();
    const waiting = new Qmp(socket).execute("x");
    socket.push(noise);
    await assert.rejects(waiting, { code: "engine_failed" });
  }
});
