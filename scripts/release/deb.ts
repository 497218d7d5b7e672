import { chmod, cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { run } from "@forkd/host/lib/exec.ts";

export interface DebOptions {
  readonly root: string;
  /** The tree of the release. */
  readonly treeDir: string;
  /** Empty directory that becomes the content of the package. */
  readonly stageDir: string;
  readonly version: string;
  readonly epoch: number;
}

/** Where the tree lies on a host, and what points into it. */
const home = "usr/lib/forkd";
const programs = ["forkd", "forkd-controller", "forkd-mcp"];

/** Files outside the tree: from the repository, to the host. Those in /etc are conffiles. */
const files: readonly (readonly [string, string])[] = [
  ["packaging/systemd/forkd-controller.service", "lib/systemd/system/forkd-controller.service"],
  ["packaging/default/forkd", "etc/default/forkd"],
  ["packaging/logrotate/forkd", "etc/logrotate.d/forkd"],
  ["packaging/deb/copyright", "usr/share/doc/forkd/copyright"],
];
const maintainerScripts = ["postinst", "prerm", "postrm"];

/** Builds the package at `path`. */
export async function packDeb(path: string, options: DebOptions): Promise<void> {
  const { root, stageDir, treeDir, epoch } = options;
  await mkdir(join(stageDir, dirname(home)), { recursive: true });
  await cp(treeDir, join(stageDir, home), { recursive: true, verbatimSymlinks: true });
  await mkdir(join(stageDir, "usr/bin"), { recursive: true });
  for (const name of programs) {
    await symlink(`../lib/forkd/bin/${name}`, join(stageDir, "usr/bin", name));
  }
  for (const [from, to] of files) {
    await mkdir(dirname(join(stageDir, to)), { recursive: true });
    await cp(join(root, from), join(stageDir, to));
  }
  await addControl(options);
  await run(["chmod", "-R", "u=rwX,go=rX", stageDir]);
  await run([
    "find",
    stageDir,
    "-exec",
    "touch",
    "--no-dereference",
    `--date=@${epoch}`,
    "{}",
    "+",
  ]);
  const argv = [
    "--root-owner-group",
    "-Zzstd",
    "-z6",
    "--threads-max=1",
    "--build",
    stageDir,
    path,
  ];
  await run(["dpkg-deb", ...argv], { env: { ...process.env, SOURCE_DATE_EPOCH: String(epoch) } });
}

async function addControl({ root, stageDir, version }: DebOptions): Promise<void> {
  const control = join(stageDir, "DEBIAN");
  await mkdir(control);
  const { stdout } = await run(["du", "-sk", "--apparent-size", stageDir]);
  const text = await readFile(join(root, "packaging/deb/control"), "utf8");
  const filled = text
    .replace("@VERSION@", version)
    .replace("@INSTALLED_SIZE@", stdout.split("\t")[0] ?? "0");
  await writeFile(join(control, "control"), filled);
  const conffiles = files.map(([, to]) => `/${to}\n`).filter((line) => line.startsWith("/etc/"));
  await writeFile(join(control, "conffiles"), conffiles.join(""));
  for (const name of maintainerScripts) {
    await cp(join(root, "packaging/deb", name), join(control, name));
    await chmod(join(control, name), 0o755);
  }
}
