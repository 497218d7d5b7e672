import { run } from "@forkd/host/lib/exec.ts";

export interface Ext4Stat {
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly inode: number;
  readonly links: number;
}

async function debugfs(image: string, command: string): Promise<string> {
  return (await run(["debugfs", "-R", command, image])).stdout;
}

/** What an image says about a path; undefined when it holds no such path. Does not follow links. */
export async function statInImage(image: string, path: string): Promise<Ext4Stat | undefined> {
  const text = await debugfs(image, `stat ${path}`);
  const number = (pattern: RegExp, base = 10): number =>
    Number.parseInt(pattern.exec(text)?.[1] ?? "NaN", base);
  if (!text.includes("Inode:")) return undefined;
  return {
    type: /Type: (\S+)/.exec(text)?.[1] ?? "",
    mode: number(/Mode: +(\d+)/, 8),
    uid: number(/User: +(\d+)/),
    gid: number(/Group: +(\d+)/),
    inode: number(/Inode: (\d+)/),
    links: number(/Links: (\d+)/),
  };
}

export async function readInImage(image: string, path: string): Promise<string> {
  return debugfs(image, `cat ${path}`);
}

/** Names in a directory of an image, sorted, without . and .. */
export async function listInImage(image: string, path: string): Promise<string[]> {
  const text = await debugfs(image, `ls -p ${path}`);
  // "/INODE/MODE/UID/GID/NAME/SIZE/"
  const names = text.split("\n").flatMap((line) => line.split("/")[5] ?? []);
  return names.filter((name) => name !== "." && name !== ".." && name !== "").sort();
}

/** Value of an extended attribute as hex; undefined when the file has none of that name. */
export async function xattrInImage(
  image: string,
  path: string,
  name: string,
): Promise<string | undefined> {
  const text = await debugfs(image, `ea_get -x ${path} ${name}`);
  return /= ([0-9a-f ]+)/.exec(text)?.[1]?.replaceAll(" ", "");
}

/** Where a symbolic link of an image points to. */
export async function readLinkInImage(image: string, path: string): Promise<string | undefined> {
  return /Fast link dest: "([^"]*)"/.exec(await debugfs(image, `stat ${path}`))?.[1];
}
