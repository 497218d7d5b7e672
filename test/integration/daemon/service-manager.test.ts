import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { missing } from "../../helpers/capabilities.ts";
import { startProcessWith } from "../../helpers/daemon-process.ts";
import { eventually } from "../../helpers/eventually.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const skip = missing({ programs: ["python3"], built: ["native/build/forkd-notify"] });

/** Stands for systemd: a line for each message, `PID TEXT`, where lines of one message meet at |. */
const receiver = `
import socket, struct, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
server.bind(sys.argv[1])
print("bound", flush=True)
while True:
    data, control, _, _ = server.recvmsg(8192, 256)
    pid = struct.unpack("iii", control[0][2])[0]
    print(pid, data.decode().replace("\\n", "|"), flush=True)
`;

/** Everything that is told at a socket, as it comes. */
async function listenAt(context: TestContext, path: string): Promise<string[]> {
  const child: ChildProcess = spawn("python3", ["-c", receiver, path], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  context.after(() => child.kill());
  assert.ok(child.stdout !== null);
  const lines = createInterface({ input: child.stdout });
  await once(lines, "line");
  const told: string[] = [];
  lines.on("line", (line) => told.push(line));
  return told;
}

test("systemd is told when requests are answered, of reloads, of life and of the end", {
  skip,
}, async (context) => {
  await using tmp = await makeTmpDir("notify");
  const socket = join(tmp.path, "notify.sock");
  const told = await listenAt(context, socket);
  const { daemon, url, pid } = await startProcessWith(context, {
    dir: join(tmp.path, "data"),
    env: { NOTIFY_SOCKET: socket, WATCHDOG_USEC: "200000" },
  });
  const heard = async (text: string, count = 1): Promise<void> => {
    const found = () => told.filter((line) => line.includes(text)).length;
    await eventually(() => assert.ok(found() >= count, `${text} in ${told.join("\n")}`));
  };
  await heard(`READY=1|STATUS=serving at ${url}`);
  await heard("WATCHDOG=1", 2);
  process.kill(pid, "SIGHUP");
  await heard("RELOADING=1|MONOTONIC_USEC=");
  await heard("READY=1|", 2);
  const atReload = told.findIndex((line) => line.includes("RELOADING=1"));
  assert.ok(
    told.slice(atReload).some((line) => line.includes("READY=1")),
    "it ends the reload",
  );

  process.kill(pid, "SIGSTOP");
  const before = told.length;
  await new Promise((resolve) => setTimeout(resolve, 600));
  // One may have been on its way.
  assert.ok(told.length <= before + 1, "a stuck daemon says nothing");
  process.kill(pid, "SIGCONT");

  process.kill(pid, "SIGTERM");
  await heard("STOPPING=1");
  assert.equal(await daemon.ended, 0);
  // As root the helper speaks in the daemon's name, which NotifyAccess=main asks for.
  if (process.getuid?.() !== 0) return;
  assert.ok(
    told.every((line) => line.startsWith(`${pid} `)),
    told.join("\n"),
  );
});
