import { text } from "node:stream/consumers";
import { toForkdError } from "@forkd/api";
import { exchangeLine } from "./tcp-agent.ts";

/** A program of its own: HOST PORT TIMEOUT_MS, one line in, one line out; see netns.ts. */
const [host = "", port = "", timeoutMs = ""] = process.argv.slice(2);

try {
  const target = { host, port: Number(port) };
  const line = (await text(process.stdin)).trimEnd();
  process.stdout.write(await exchangeLine({ target, line, timeoutMs: Number(timeoutMs) }));
} catch (error) {
  process.stderr.write(`${toForkdError(error).message}\n`);
  process.exitCode = 1;
}
