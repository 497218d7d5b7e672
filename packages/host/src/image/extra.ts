import { access, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { reword, runTool } from "./tools.ts";

const installTimeoutMs = 20 * 60_000;

export interface ExtraOptions {
  readonly treeDir: string;
  /** Staging directory for the container's own files. */
  readonly dir: string;
  readonly packages: readonly string[];
  readonly progress: (message: string) => void;
  readonly signal: AbortSignal;
}

/** Package managers by the file that shows them; each script gets the packages as arguments. */
const managers: readonly (readonly [string, string])[] = [
  [
    "usr/bin/apt-get",
    "set -e; apt-get update -q; " +
      'apt-get install -q -y --no-install-recommends -- "$@"; ' +
      "apt-get clean; rm -rf /var/lib/apt/lists/*",
  ],
  ["sbin/apk", 'exec apk add --no-cache -- "$@"'],
  ["usr/sbin/apk", 'exec apk add --no-cache -- "$@"'],
];

/**
 * Installs packages with the image's own package manager. What runs is code of the image, so it
 * runs in a container: own mounts, processes and names, few capabilities, no way to the host's
 * files; only the network is the host's. Everything in it ends with this call.
 */
export async function installExtra(options: ExtraOptions): Promise<void> {
  const script = await findManager(options.treeDir);
  options.progress(`installing ${options.packages.join(", ")}`);
  const bundle = join(options.dir, "bundle");
  const state = join(options.dir, "container");
  await mkdir(bundle);
  const spec = containerSpec(options.treeDir, ["/bin/sh", "-c", script, "sh", ...options.packages]);
  await writeFile(join(bundle, "config.json"), JSON.stringify(spec));
  // The container dies with its outer process namespace, even when this process group is killed.
  const outer = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
  // crun looks at the kind of control groups although it shall make none, and refuses mixed kinds.
  const plainCgroups = 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"';
  const crun = ["crun", "--cgroup-manager=disabled", "--root", state];
  const inner = ["sh", "-c", plainCgroups, "sh", ...crun, "run", "--bundle", bundle, "forkd-extra"];
  try {
    await runTool([...outer, ...inner], {
      timeoutMs: installTimeoutMs,
      signal: options.signal,
    });
  } catch (error) {
    throw reword(error, rules(options.packages));
  }
}

async function findManager(treeDir: string): Promise<string> {
  for (const [file, script] of managers) {
    const found = await access(join(treeDir, file)).then(
      () => true,
      () => false,
    );
    if (found) return script;
  }
  throw new ForkdError("image_invalid", "the image has neither apt-get nor apk for --extra", {
    hint: "leave --extra out, or put the packages into the image",
  });
}

function rules(packages: readonly string[]) {
  return [
    {
      words:
        /executable file `?(unshare|crun)|failed to execute crun|(crun|unshare): (not found|No such file)/,
      code: "tool_missing" as const,
      message: "installing packages into an image needs crun",
      hint: "run: apt-get install crun",
    },
    {
      words:
        /Temporary failure resolving|Could not resolve|Could not connect|Unable to connect|network error|temporary error/i,
      code: "registry_unreachable" as const,
      message: "the image cannot reach its package archive",
    },
    {
      words: /Unable to locate package|no such package|has no installation candidate/,
      code: "image_not_found" as const,
      message: `the image's distribution lacks one of ${packages.join(", ")}`,
      hint: "check the names given to --extra",
    },
  ];
}

/** What package scripts need to change owners and users, and nothing that reaches the host. */
const capabilities = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETFCAP",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SYS_CHROOT",
];

/** OCI runtime-spec 1.0 configuration. */
function containerSpec(treeDir: string, args: readonly string[]): object {
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args,
      cwd: "/",
      env: [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "LC_ALL=C",
        "DEBIAN_FRONTEND=noninteractive",
      ],
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      noNewPrivileges: true,
    },
    root: { path: treeDir, readonly: false },
    hostname: "forkd-build",
    mounts: [
      {
        destination: "/proc",
        type: "proc",
        source: "proc",
        options: ["nosuid", "noexec", "nodev"],
      },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "mode=755", "size=65536k"],
      },
      { destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["mode=1777", "size=50%"] },
      {
        destination: "/etc/resolv.conf",
        type: "bind",
        source: "/etc/resolv.conf",
        options: ["bind", "ro"],
      },
    ],
    linux: {
      namespaces: [{ type: "pid" }, { type: "mount" }, { type: "ipc" }, { type: "uts" }],
      maskedPaths: ["/proc/kcore", "/proc/keys", "/proc/sysrq-trigger", "/proc/timer_list"],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
    },
  };
}
