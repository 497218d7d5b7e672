/** Below this is what Firecracker's ACPI tables are in, and the generation's id. */
export const lowRamBytes = 0x100000;
const idBytes = 16;

/**
 * The generation's id in the low RAM of a Firecracker, hex. Its place is in the ACPI tables: a
 * device VMGENCTR whose ADDR is a package of two numbers, the low half first (ACPI 6.5, 20.2: a
 * package is 0x12, its length, its count; a DWORD is 0x0c and four bytes). Undefined without one.
 */
export function vmGenIdIn(lowRam: Buffer): string | undefined {
  const device = lowRam.indexOf("VMGENCTR", 0, "latin1");
  const name = device < 0 ? -1 : lowRam.indexOf("ADDR", device, "latin1");
  if (name < 0) return undefined;
  const [packageOp, , count, dwordPrefix] = lowRam.subarray(name + 4);
  if (packageOp !== 0x12 || count !== 2 || dwordPrefix !== 0x0c) return undefined;
  const at = lowRam.readUInt32LE(name + 8);
  return lowRam.toString("hex", at, at + idBytes);
}
