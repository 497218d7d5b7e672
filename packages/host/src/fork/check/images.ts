import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { undefinedIfMissing } from "../../store/files.ts";
import { listRootImages, type RootImage, verifyRootImage } from "../../store/rootfs.ts";
import { type CheckScope, type Fault, type Findings, faultOf, stray, together } from "./fault.ts";

const namePattern = /^([0-9a-f]{64})\.(img|json)$/;

/** Every root image, or those named: whether its bytes are what its name says. */
export async function checkImages(
  scope: CheckScope,
  only: ReadonlySet<string> | null,
): Promise<Findings> {
  const images = (await listRootImages(scope.paths)).filter(
    ({ sha256 }) => only?.has(sha256) ?? true,
  );
  const findings: Findings[] = [];
  for (const image of images) {
    scope.signal.throwIfAborted();
    findings.push(await checkImage(scope, image));
  }
  const faults = only === null ? await strays(scope, new Set(images.map((i) => i.sha256))) : [];
  return together([...findings, { checked: 0, bytes: 0, faults }]);
}

async function checkImage({ onNotice }: CheckScope, image: RootImage): Promise<Findings> {
  onNotice(`reading the root image of ${image.ref}`);
  try {
    await verifyRootImage(image);
    return { checked: 1, bytes: image.sizeBytes, faults: [] };
  } catch (error) {
    return { checked: 1, bytes: image.sizeBytes, faults: [faultOf("image", image.path, error)] };
  }
}

/** An image without a record, or with one of another size, does not count as one. */
async function strays({ paths }: CheckScope, whole: ReadonlySet<string>): Promise<Fault[]> {
  const names = (await readdir(paths.rootfsDir).catch(undefinedIfMissing)) ?? [];
  const found = await Promise.all(
    names.map(async (name): Promise<Fault[]> => {
      const path = join(paths.rootfsDir, name);
      const [, sha256, extension] = namePattern.exec(name) ?? [];
      if (name.startsWith(".") || (sha256 !== undefined && whole.has(sha256))) return [];
      if (sha256 === undefined) return [stray(path, "it is no root image")];
      if (extension === "json") {
        const image = await stat(path.replace(/\.json$/, ".img")).catch(undefinedIfMissing);
        return image === undefined ? [stray(path, "the image that it describes is missing")] : [];
      }
      return [incomplete(path)];
    }),
  );
  return found.flat();
}

function incomplete(path: string): Fault {
  return {
    kind: "image",
    what: path,
    code: "snapshot_incomplete",
    why: "its record is missing, or says another size: snapshots of it cannot be forked",
    hint: "build it again with: forkd from-image REF --refresh --tag TAG",
  };
}
