import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "@forkd/host/lib/exec.ts";
import { type TarMember, writeTar } from "./tar-writer.ts";

/** vfs_cap_data, revision 2: cap_net_bind_service permitted and effective (linux/capability.h). */
export const netBindCapabilityHex = "0100000200040000000000000000000000000000";

/** Three layers that use what layers can do: replace, remove, hide, link, own, mark. */
export const fixtureLayers: readonly (readonly TarMember[])[] = [
  [
    { name: "etc/", type: "dir" },
    { name: "etc/os-release", data: "first\n" },
    { name: "etc/gone", data: "removed by the second layer\n" },
    { name: "etc/noted", data: "noted\n", xattrs: { "user.note": "kept" } },
    { name: "etc/link", type: "symlink", linkTo: "os-release" },
    { name: "etc/far", type: "symlink", linkTo: "/etc/os-release" },
    { name: "opt/", type: "dir" },
    { name: "opt/data/", type: "dir" },
    { name: "opt/data/old", data: "hidden by the second layer\n" },
    { name: "usr/", type: "dir" },
    { name: "usr/bin/", type: "dir" },
    { name: "usr/bin/suid", mode: 0o4755, data: "#!/bin/sh\n" },
    {
      name: "usr/bin/capped",
      mode: 0o755,
      data: "#!/bin/sh\n",
      xattrs: { "security.capability": Buffer.from(netBindCapabilityHex, "hex") },
    },
    { name: "usr/lib/", type: "dir" },
    { name: "usr/lib/a", data: "one file, two names\n" },
    { name: "usr/lib/b", type: "hardlink", linkTo: "usr/lib/a" },
    { name: "var/", type: "dir" },
    { name: "var/spool/", type: "dir", mode: 0o1777 },
  ],
  [
    { name: "etc/.wh.gone" },
    { name: "opt/data/", type: "dir" },
    { name: "opt/data/.wh..wh..opq" },
    { name: "opt/data/new", data: "new\n" },
    { name: "home/", type: "dir" },
    { name: "home/u/", type: "dir", mode: 0o700, uid: 1234, gid: 2345 },
    { name: "home/u/file", mode: 0o640, uid: 1234, gid: 2345, data: "mine\n" },
  ],
  [
    { name: "etc/os-release", data: "third\n" },
    { name: "home/u/big-owner", uid: 2_000_000, gid: 65_534, data: "x" },
  ],
];

/** Makes an OCI layout `dir` with an image of these layers under `tag`. */
export async function makeOciImage(
  dir: string,
  tag: string,
  layers: readonly (readonly TarMember[])[] = fixtureLayers,
): Promise<void> {
  await run(["umoci", "init", "--layout", dir]);
  const image = `${dir}:${tag}`;
  await run(["umoci", "new", "--image", image]);
  for (const [index, members] of layers.entries()) {
    const layer = join(dir, `layer-${index}.tar`);
    await writeFile(layer, writeTar(members));
    await run(["umoci", "raw", "add-layer", "--image", image, layer]);
    await run(["rm", layer]);
  }
  const config = [
    ["env", "PATH=/usr/bin:/bin"],
    ["env", "GREETING=hello = world"],
    ["user", "1234:2345"],
    ["workingdir", "/home/u"],
    ["entrypoint", "/usr/bin/suid"],
    ["cmd", "--serve"],
  ].flatMap(([name, value]) => [`--config.${name}`, value ?? ""]);
  await run(["umoci", "config", "--image", image, ...config]);
}

/** Sends an image of a layout to a registry without TLS. */
export async function pushImage(layout: string, name: string): Promise<void> {
  await run(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", layout, `docker://${name}`]);
}
