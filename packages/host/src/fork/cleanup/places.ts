import { join } from "node:path";
import type { DataPaths } from "../../config/data-paths.ts";
import { bootId } from "../../linux/proc.ts";
import { layout } from "../../store/layout.ts";

export const cleanupKinds = [
  "leak",
  "memory_image",
  "flat_image",
  "download",
  "trial",
  "quarantine",
  "root_image",
  "upstream",
] as const;
export type CleanupKind = (typeof cleanupKinds)[number];

/** A directory in which forkd makes things that can be made again. */
export interface Place {
  readonly kind: CleanupKind;
  readonly dir: string;
  /** Names of what it may hold; whatever else is there is not touched. */
  readonly names: RegExp;
  /** What they are; a sentence without its full stop. */
  readonly why: string;
  /** Milliseconds since it was last used before which it may be about to be used. */
  readonly graceMs: number;
  /** Why they stay, though they could go; null when they go. */
  readonly keep: string | null;
}

/** The slowest step from the look-up of an image to the VMM that maps it: overlayLimits.graceMs. */
const imageGraceMs = 10 * 60_000;
/** The longest that a trial, or a download that goes on, may leave its file alone. */
const workGraceMs = 60 * 60_000;
const hash = /^[0-9a-f]{64}$/;

/** Everything below a data directory that is kept to be faster, or in case that it is needed. */
export function placesOf(paths: DataPaths): readonly Place[] {
  const overlays = layout.overlaysDir(paths);
  const images = { kind: "memory_image", names: hash, graceMs: imageGraceMs, keep: null } as const;
  const why = "the memory of a chain, put together; it is made again when it is needed";
  return [
    { ...images, dir: paths.hotDir, why },
    { ...images, dir: join(overlays, bootId()), why },
    {
      kind: "flat_image",
      dir: join(paths.cacheDir, "flat"),
      names: /\.img$/,
      why,
      graceMs: imageGraceMs,
      keep: null,
    },
    {
      kind: "download",
      dir: layout.pullsDir(paths),
      names: /^[0-9a-f]{64}\.(part|json)$/,
      why: "a download that stopped, and could go on",
      graceMs: workGraceMs,
      keep: null,
    },
    ...[join(paths.cacheDir), paths.dataDir].map((dir) => ({
      kind: "trial" as const,
      dir,
      names: /^(?:kvm-trial|fc-trial|\.doctor)-\w{6}$/,
      why: "left of a trial that was cut off",
      graceMs: workGraceMs,
      keep: null,
    })),
    {
      kind: "quarantine",
      dir: layout.quarantineDir(paths),
      names: /./,
      why: "could not be understood, and was moved out of the way",
      graceMs: 0,
      keep: "look at it, and remove it yourself",
    },
  ];
}

/** What upstream's programs leave in the directory for temporary files. */
export function upstreamPlace(tmpDir: string): Place {
  const uses = "fork|parent|unpack|pull|daemon|snapshot|workspace|run|push|quickstart";
  return {
    kind: "upstream",
    dir: tmpDir,
    names: new RegExp(`^forkd-(?:${uses}|branch-diff|ws-diff|diff-measure|rootfs)-[\\w.-]+$`),
    why: "left by upstream's forkd",
    graceMs: workGraceMs,
    keep: null,
  };
}
