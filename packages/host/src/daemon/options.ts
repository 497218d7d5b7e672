/** One option of `forkd-controller serve`: `--NAME VALUE`, else its variable, else its fallback. */
export interface DaemonOption {
  readonly env: string;
  /** What stands for the value in help; null for a switch. */
  readonly value: string | null;
  readonly doc: string;
  readonly fallback: string;
}

const option = (
  env: string,
  value: string | null,
  words: readonly [string, string],
): DaemonOption => ({
  env,
  value,
  doc: words[0],
  fallback: words[1],
});

/** Every option by its flag's name; help, parsing and the configuration's schema derive from it. */
export const daemonOptions = {
  bind: option("FORKD_BIND", "ADDR:PORT", ["Where to listen", "127.0.0.1:8889"]),
  "data-dir": option("FORKD_DATA_DIR", "DIR", [
    "Where snapshots and sandboxes live",
    "/var/lib/forkd for root, else $XDG_DATA_HOME/forkd",
  ]),
  "snapshot-root": option("FORKD_SNAPSHOT_ROOT", "DIR", ["Snapshots only", "DATA-DIR/snapshots"]),
  state: option("FORKD_STATE", "FILE", ["State file for operators", "DATA-DIR/state.json"]),
  "audit-log": option("FORKD_AUDIT_LOG", "FILE", [
    "One JSON line a request",
    "/var/log/forkd/audit.log, or DATA-DIR/audit.log when that is moved",
  ]),
  "token-file": option("FORKD_TOKEN_FILE", "FILE", [
    "Bearer token of 16 bytes or more that every request must carry",
    "none: no authentication, loopback only",
  ]),
  "tls-cert": option("FORKD_TLS_CERT", "FILE", ["Certificate chain, PEM", "none: plain HTTP"]),
  "tls-key": option("FORKD_TLS_KEY", "FILE", ["Private key of the certificate, PEM", "none"]),
  "allow-plain-http": option("FORKD_ALLOW_PLAIN_HTTP", null, [
    "Listen beyond loopback without TLS, for example behind a proxy that has it",
    "no",
  ]),
  "prewarm-scratch-dir": option("FORKD_PREWARM_SCRATCH_DIR", "DIR", [
    "Scratch space of prewarming",
    "/dev/shm/forkd-prewarm",
  ]),
  "identity-timeout-secs": option("FORKD_IDENTITY_TIMEOUT_SECS", "SECS", [
    "Kill a child that does not prove an identity of its own in this time",
    "60",
  ]),
  engine: option("FORKD_ENGINE", "auto|qemu|firecracker", [
    "What runs new parents; children are run by what froze their parent",
    "auto: Firecracker where it works, else QEMU",
  ]),
  firecracker: option("FORKD_FIRECRACKER", "FILE", [
    "Firecracker, with its jailer beside it",
    "what forkd firecracker install has put into DATA-DIR, else the first on PATH",
  ]),
  "firecracker-unjailed": option("FORKD_FIRECRACKER_UNJAILED", null, [
    "Run Firecracker without its jailer, as ourselves: for development",
    "no",
  ]),
  "cpu-template": option("FORKD_CPU_TEMPLATE", "NAME|FILE", [
    "CPU that Firecracker's guests see, so that unlike hosts can restore them",
    "none: the host's own",
  ]),
  "kvm-trial-secs": option("FORKD_KVM_TRIAL_SECS", "SECS", [
    "Give up the guest that tries KVM after this; more where KVM is nested and slow",
    "8",
  ]),
  "branch-concurrency": option("FORKD_BRANCH_CONCURRENCY", "N", ["Branches at one time", "4"]),
} as const satisfies Record<string, DaemonOption>;

export type DaemonOptionName = keyof typeof daemonOptions;

/** The text of `forkd-controller --help`. */
export function renderDaemonHelp(): string {
  const blocks = Object.entries(daemonOptions).map(([name, { value, doc, env, fallback }]) =>
    [
      `  --${name}${value === null ? "" : ` ${value}`}`,
      `      ${doc}`,
      `      ${env}; default: ${fallback}`,
    ].join("\n"),
  );
  return `Usage: forkd-controller serve [OPTIONS]
       forkd-controller drain [--timeout SECS] [OPTIONS]

serve answers the forkd API until SIGTERM or SIGINT; sandboxes run on, and the next daemon takes
them over. SIGHUP reads the token and the certificates again and opens the audit log anew. drain
stops the daemon and ends all of its sandboxes, within 60 seconds if no other time is given.

Options (each with the variable that stands in for it):
${blocks.join("\n")}
  --help
  --version

Exit codes: 0 stopped as asked, 1 could not start or failed, 2 wrong usage or configuration.
`;
}
