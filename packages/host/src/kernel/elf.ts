const magic = Buffer.from([0x7f, 0x45, 0x4c, 0x46]);

/** Sections of a kernel module; more means that the file is broken. */
const sectionsMax = 65_535;

/** Whether bytes begin like an ELF file. */
export function isElf(bytes: Uint8Array): boolean {
  return magic.equals(bytes.subarray(0, magic.length));
}

/**
 * Content of one section of a 64-bit little-endian ELF file, undefined when there is none of that
 * name. Throws RangeError when the file is no such ELF or an offset points outside it. Offsets of
 * fields: System V ABI, "ELF Header" and "Section Header".
 */
export function findSection(file: Buffer, name: string): Buffer | undefined {
  const classAndOrder = file.subarray(4, 6);
  if (!isElf(file) || !classAndOrder.equals(Buffer.from([2, 1]))) {
    throw new RangeError("not a 64-bit little-endian ELF file");
  }
  const tableOffset = Number(file.readBigUInt64LE(0x28));
  const entrySize = file.readUInt16LE(0x3a);
  const count = Math.min(file.readUInt16LE(0x3c), sectionsMax);
  const header = (index: number): Buffer => slice(file, tableOffset + index * entrySize, entrySize);
  const names = content(file, header(file.readUInt16LE(0x3e)));
  for (let index = 0; index < count; index += 1) {
    const section = header(index);
    if (textAt(names, section.readUInt32LE(0)) === name) return content(file, section);
  }
  return undefined;
}

function content(file: Buffer, section: Buffer): Buffer {
  return slice(file, Number(section.readBigUInt64LE(0x18)), Number(section.readBigUInt64LE(0x20)));
}

function slice(file: Buffer, offset: number, length: number): Buffer {
  if (offset < 0 || length < 0 || offset + length > file.length) {
    throw new RangeError("an ELF offset points outside the file");
  }
  return file.subarray(offset, offset + length);
}

function textAt(names: Buffer, offset: number): string {
  const end = names.indexOf(0, offset);
  return names.subarray(offset, end < 0 ? names.length : end).toString("latin1");
}
