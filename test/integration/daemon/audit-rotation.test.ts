import assert from "node:assert/strict";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { run } from "@forkd/host/lib/exec.ts";
import { Client } from "@forkd/sdk";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import { startProcess } from "../../helpers/daemon-process.ts";
import { eventually } from "../../helpers/eventually.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const skip = missing({ programs: ["logrotate"] });

/** The stanza that is shipped, for another log and another way to send the signal. */
async function stanzaFor(log: string, pid: number): Promise<string> {
  const shipped = await readFile(join(repoRoot, "packaging/logrotate/forkd"), "utf8");
  const stanza = shipped
    .replace("/var/log/forkd/audit.log", log)
    .replace(/systemctl kill .*/, `kill -HUP ${pid}`);
  assert.match(stanza, /kill -HUP \d+/);
  return stanza;
}

/** `forkd audit verify --json` on the log of a data directory. */
async function verify(dataDir: string, ...words: string[]) {
  const forkd = [join(repoRoot, "bin/forkd"), "--json", "--data-dir", dataDir];
  // A log that was tampered with is told on standard output, with exit code 1.
  const shell = ["sh", "-c", '"$@" || [ $? -eq 1 ]', "sh", ...forkd, "audit", "verify", ...words];
  return JSON.parse((await run(shell)).stdout);
}

test("logrotate's rotations under load lose no line and keep the chain", {
  skip,
}, async (context) => {
  await using tmp = await makeTmpDir("rotation");
  const dataDir = join(tmp.path, "data");
  await mkdir(dataDir, { mode: 0o700 });
  const { url, pid, daemon } = await startProcess(context, dataDir);
  const log = join(dataDir, "audit.log");
  const stanza = join(tmp.path, "stanza");
  await writeFile(stanza, await stanzaFor(log, pid), { mode: 0o600 });
  const client = new Client({ url });
  const stop = new AbortController();
  let answered = 0;
  const worker = (async () => {
    for (; !stop.signal.aborted; answered += 1) await client.health();
  })();
  for (let turn = 1; turn <= 4; turn += 1) {
    // An empty log is not rotated, and one of a few lines leaves none to take out below.
    const grown = async () => assert.ok((await stat(log)).size > 3000);
    await eventually(grown, { timeoutMs: 20_000 });
    await run(["logrotate", "--force", "--state", join(tmp.path, "state"), stanza]);
    await daemon.logged("reloaded: token", turn);
  }
  stop.abort();
  await worker;
  process.kill(pid, "SIGTERM");
  assert.equal(await daemon.ended, 0);
  const names = (await readdir(dataDir)).filter((name) => name.startsWith("audit.log"));
  assert.ok(
    names.some((name) => name.endsWith(".gz")),
    names.join(" "),
  );
  const verdict = await verify(dataDir);
  assert.deepEqual(verdict.findings, []);
  assert.deepEqual([verdict.entries, verdict.first_seq, verdict.last_seq], [answered, 1, answered]);

  const rotated = `${log}.1`;
  const lines = (await readFile(rotated, "utf8")).split("\n");
  await writeFile(rotated, lines.toSpliced(2, 1).join("\n"));
  const [finding] = (await verify(dataDir)).findings;
  assert.deepEqual([finding.file, finding.line], [rotated, 3]);
  assert.match(finding.problem, /missing before this line/);
});

test("an entry that was noted elsewhere is looked for", async (context) => {
  await using tmp = await makeTmpDir("rotation");
  const { url, pid, daemon } = await startProcess(context, tmp.path);
  await new Client({ url }).health();
  process.kill(pid, "SIGTERM");
  await daemon.ended;
  const { head, last_seq: seq } = await verify(tmp.path);
  assert.ok(
    daemon.stdout.some((line) => line.includes(`${seq}:${head}`)),
    "the daemon's log has it",
  );
  assert.deepEqual((await verify(tmp.path, "--expect", `${seq}:${head}`)).findings, []);
  const other = (await verify(tmp.path, "--expect", `${seq}:${"0".repeat(64)}`)).findings;
  assert.match(other[0].problem, /is not the one that was noted elsewhere/);
  const later = (await verify(tmp.path, "--expect", `${seq + 1}:${head}`)).findings;
  assert.match(later[0].problem, /missing at the end/);
});
