/**
 * `fake-vmm.ts MISDEEDS_DIR ...`: stands in for QEMU. It says on its monitors what a restore and an
 * adoption need to hear, and plays the agent of its guest: a hostile one, if a file in MISDEEDS_DIR
 * names what it does, else an honest one. The file is used up. `misdeed` in its directory tells.
 */
import { readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { falseIdentities, misdeeds } from "./misdeeds.ts";
import { type Answer, PlayedAgent } from "./played-agent.ts";

/** Where its owner connects to its monitor, see VmmBroker. */
const monitorFd = 3;

function takeMisdeed(dir: string): string | undefined {
  for (const name of readdirSync(dir).filter((each) => !each.startsWith("."))) {
    const taken = join(dir, `.taken-${process.pid}-${name}`);
    try {
      renameSync(join(dir, name), taken);
      return readFileSync(taken, "utf8");
    } catch {
      // Another VM was faster.
    }
  }
  return undefined;
}

function answersOf(name: string | undefined): Readonly<Record<string, Answer>> {
  if (name === undefined) return {};
  const act = misdeeds[name]?.act;
  const answers = falseIdentities[name] ?? (act && { exec: act });
  if (answers === undefined) throw new Error(`nobody knows the misdeed ${name}`);
  return answers;
}

function serveMonitor(socket: Socket): void {
  socket.on("error", () => undefined);
  const say = (message: object): boolean => socket.write(`${JSON.stringify(message)}\n`);
  say({ QMP: { version: { qemu: { major: 7, minor: 2, micro: 0 } }, capabilities: [] } });
  createInterface({ input: socket }).on("line", (line) => {
    const { id, execute } = JSON.parse(line);
    say({ return: {}, id });
    if (execute !== "migrate-incoming") return;
    const timestamp = { seconds: 0, microseconds: 0 };
    say({ event: "MIGRATION", data: { status: "completed" }, timestamp });
  });
}

const misdeed = takeMisdeed(process.argv[2] ?? ".");
const answers = answersOf(misdeed);
writeFileSync("misdeed", misdeed ?? "");
createServer((socket) => new PlayedAgent(socket, answers)).listen("agent.sock");
for (const name of ["qmp.sock", "capture.sock"]) createServer(serveMonitor).listen(name);
createServer(serveMonitor).listen({ fd: monitorFd });
