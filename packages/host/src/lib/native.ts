import { fileURLToPath } from "node:url";

/** What native/ builds: programs, and the library that VMMs load. */
export const nativeNames = [
  "forkd-launch",
  "forkd-tsc",
  "forkd-capture",
  "forkd-sparse",
  "forkd-notify",
  "forkd-probe",
  "forkd-broker",
  "forkd-ram.so",
] as const;
export type NativeName = (typeof nativeNames)[number];

/**
 * Path of one of our C helpers: `FORKD_NATIVE_DIR`, else native/build of the checkout or of the
 * package that this file is in.
 */
export function nativeTool(name: NativeName): string {
  const dir = process.env["FORKD_NATIVE_DIR"];
  if (dir !== undefined && dir !== "") return `${dir}/${name}`;
  return fileURLToPath(new URL(`../../../../native/build/${name}`, import.meta.url));
}
