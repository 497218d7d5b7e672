import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AuditLog } from "@forkd/host/fork/audit-log.ts";
import { verifyAudit } from "@forkd/host/fork/audit-verify.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";

/**
 * Writes an audit log in the directory of its argument, a small file system of its own, until that
 * is full, makes room, and writes on. Prints what it found.
 */
const [dir = ""] = process.argv.slice(2);
const path = join(dir, "audit.log");
const filler = join(dir, "filler");
let refusals = 0;
const log = { ...silentLogger, error: () => (refusals += 1) };

const audit = await AuditLog.open(path, log);
const write = async (text: string): Promise<void> => {
  audit.write({ text });
  // Waits until it is written, or was refused.
  await audit.reopen();
};
await write("before");
await writeFile(filler, Buffer.alloc(1 << 20)).catch(() => undefined);
for (let i = 0; i < 4; i += 1) await write(`${i}`.repeat(9000));
const whileFull = await verifyAudit([path], []);
await rm(filler);
await write("after");
await audit[Symbol.asyncDispose]();
console.log(JSON.stringify({ refusals, whileFull, after: await verifyAudit([path], []) }));
