import { readFile } from "node:fs/promises";
import { keepBootFile } from "../store/boot-files.ts";
import { parseRootRecord, publishRootImage, type StagedRootImage } from "../store/rootfs.ts";
import type { PackHost } from "./host.ts";
import { knownMember, memberPath } from "./manifest.ts";
import { invalid } from "./tar-read.ts";

/**
 * Puts root images, kernels and initramfs images on their shelves, by their hashes, which were
 * compared before: `staged` has the files by their paths in the pack. What is there is kept.
 */
export async function publishImages(
  { paths }: PackHost,
  staged: ReadonlyMap<string, string>,
): Promise<void> {
  const images: StagedRootImage[] = [];
  for (const [path, file] of staged) {
    const member = knownMember(path);
    if (member.kind !== "image") continue;
    const recordFile = staged.get(memberPath({ ...member, kind: "record" })) ?? "";
    const record = parseRootRecord(await readFile(recordFile, "utf8"));
    if (record === undefined) throw invalid(`the record of ${path} cannot be used`);
    images.push({ path: file, ref: record.ref, config: record.config });
  }
  for (const [path, file] of staged) {
    const member = knownMember(path);
    if (member.kind === "boot") await keepBootFile(paths, file, member.sha256);
  }
  for (const image of images) await publishRootImage(paths, image);
}
