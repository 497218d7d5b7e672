import { X509Certificate } from "node:crypto";
import { chmod, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { parseEnv } from "node:util";
import { limits } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import { findListener, hasListener } from "../linux/listener.ts";
import { type Check, type Finding, fail, pass, skip, warn } from "./check.ts";
import { type DoctorScope, readText } from "./scope.ts";

/** A sandbox holds two descriptors of its daemon's under QEMU, and more while it is being made. */
const descriptorsPerSandbox = 4;
const descriptorsBesides = 1_024;
const dayMs = 86_400_000;
const certificateDaysLeft = 30;
/** Of `--tls-cert`, see the options of forkd-controller. */
const tlsVariable = "FORKD_TLS_CERT";
const groupAndOthers = 0o077;
/** The daemon's program, or the file that it runs. */
const ownCommand = /forkd-controller|\bdaemon\/main\.[jt]s\b/;

export const daemonChecks: readonly Check[] = [
  { name: "daemon", run: daemon },
  { name: "port", run: port },
  { name: "ulimits", run: ulimits },
  { name: "token", run: token },
  { name: "certificate", run: certificate },
];

const start = "sudo systemctl start forkd-controller  # or: forkd-controller serve";

async function daemon(scope: DoctorScope): Promise<Finding> {
  const answer = await scope.askDaemon();
  const { daemonUrl: url, version, tokenFile } = scope;
  switch (answer.kind) {
    case "up":
      if (answer.facts.version === version) return pass(`${url} answers, ${version}`);
      return otherVersion(answer.facts.version, scope);
    case "other":
      return otherVersion(answer.version, scope);
    case "refused":
      return fail(answer.reason, `export FORKD_TOKEN="$(sudo cat ${tokenFile})"`);
    case "absent":
      return warn(`nobody answers at ${url}; commands work without a daemon`, start);
    case "broken":
      return fail(answer.reason, "sudo journalctl -u forkd-controller -n 100 --no-pager");
  }
}

function otherVersion(theirs: string, { daemonUrl, version }: DoctorScope): Finding {
  const detail = `${daemonUrl} runs ${theirs}, this is ${version}`;
  return warn(detail, "sudo systemctl restart forkd-controller");
}

/** Who has the daemon's port: a stranger keeps it from starting. */
async function port(scope: DoctorScope): Promise<Finding> {
  const { hostname, port: text, protocol } = new URL(scope.daemonUrl);
  const number = Number(text || (protocol === "https:" ? 443 : 80));
  if (!["127.0.0.1", "localhost", "[::1]"].includes(hostname)) {
    return skip(`${hostname} is another host`);
  }
  const { kind } = await scope.askDaemon();
  const isOurs = kind === "up" || kind === "other" || kind === "refused";
  const look = `sudo ss -ltnp | grep :${number}`;
  const listener = await findListener(number);
  if (listener === undefined) {
    if (!(await hasListener(number))) return pass(`port ${number} is free`);
    const detail = `port ${number} is taken, by whom is not ours to see`;
    return isOurs ? pass(detail) : fail(detail, look);
  }
  const who = `pid ${listener.pid} (${listener.command}) has port ${number}`;
  if (isOurs) return pass(who);
  if (ownCommand.test(listener.command)) {
    const url = scope.daemonUrl.replace(/^http:/, "https:");
    return warn(`${who}, and does not answer at ${scope.daemonUrl}`, `export FORKD_URL=${url}`);
  }
  return fail(`${who} and is no forkd-controller`, `${look}  # then: sudo kill ${listener.pid}`);
}

/** The daemon's, if it runs here, else those that it would get from this shell. */
async function ulimits({ roots, askDaemon }: DoctorScope): Promise<Finding> {
  const answer = await askDaemon();
  const pid = answer.kind === "up" ? String(answer.facts.pid) : "self";
  const own = await readText(join(roots.proc, "self/limits"));
  const text = (await readText(join(roots.proc, pid, "limits"))) ?? own ?? "";
  // Node raises its soft limit to the hard one.
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(text)?.[1] ?? "0";
  const wanted = descriptorsPerSandbox * limits.spawnCountMax + descriptorsBesides;
  if (hard === "unlimited" || Number(hard) >= wanted) return pass(`${hard} open files`);
  const detail = `${hard} open files at most; ${limits.spawnCountMax} sandboxes need ${wanted}`;
  return warn(detail, pid === "self" ? "ulimit -Hn 65536" : raiseInUnit);
}

const dropIn = "/etc/systemd/system/forkd-controller.service.d";
const raiseInUnit =
  `sudo mkdir -p ${dropIn} && printf '[Service]\\nLimitNOFILE=65536\\n' | ` +
  `sudo tee ${dropIn}/files.conf && sudo systemctl daemon-reload && ` +
  "sudo systemctl restart forkd-controller";

async function token({ tokenFile: path }: DoctorScope): Promise<Finding> {
  const found = await stat(path).catch(() => undefined);
  const write = `head -c 32 /dev/urandom | base64 | sudo tee ${path} >/dev/null && sudo chmod 600 ${path}`;
  if (found === undefined) return skip(`there is no ${path}`, write);
  if ((found.mode & groupAndOthers) !== 0) {
    const mode = (found.mode & 0o777).toString(8);
    return fail(`${path} has mode ${mode}`, `sudo chmod 600 ${path}`, async () => {
      await chmod(path, 0o600);
      return `${path} is its owner's only`;
    });
  }
  const text = await readText(path);
  if (text === undefined) return notOurs(path);
  if (Buffer.byteLength(text) >= limits.tokenBytesMin) return pass(`${path}, mode 600`);
  return fail(`${path} holds fewer than ${limits.tokenBytesMin} bytes`, write);
}

/** Of the asker's daemon, else of the unit's: the variable of `--tls-cert`. */
async function certificate({ tlsCertFile, roots }: DoctorScope): Promise<Finding> {
  if (tlsCertFile !== undefined) return await certificateIn(tlsCertFile);
  const settings = await readText(roots.settings);
  if (settings === undefined && (await isThere(roots.settings))) return notOurs(roots.settings);
  const named = parseEnv(settings ?? "")[tlsVariable];
  if (named) return await certificateIn(named);
  // A drop-in of the unit may name one all the same, which nobody else can see.
  return skip(`no ${tlsVariable} here or in ${roots.settings}; loopback needs no TLS`);
}

const notOurs = (path: string): Finding => skip(`${path} is not ours to read`, "sudo forkd doctor");

/** False only when we can see that it is not. */
async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    (error) => !isErrno(error, "ENOENT"),
  );
}

async function certificateIn(path: string): Promise<Finding> {
  const text = await readText(path);
  if (text === undefined) {
    if (await isThere(path)) return notOurs(path);
    return fail(`the daemon's certificate ${path} is missing`, `ls -l ${dirname(path)}`);
  }
  const { validTo, validToDate } = new X509Certificate(text);
  const days = Math.floor((validToDate.getTime() - Date.now()) / dayMs);
  const hint = `openssl x509 -noout -dates -in ${path}  # renew it, then: sudo systemctl reload forkd-controller`;
  if (days < 0) return fail(`${path} ended at ${validTo}`, hint);
  if (days < certificateDaysLeft) return warn(`${path} ends in ${days} days`, hint);
  return pass(`${path} ends in ${days} days`);
}
