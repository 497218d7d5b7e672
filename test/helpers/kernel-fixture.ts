/** Little files in the formats that the kernel's packaging uses. */

/** A 64-bit ELF object with these sections (System V ABI). */
export function writeElf(sections: Readonly<Record<string, string>>): Buffer {
  const names = ["", ...Object.keys(sections), ".shstrtab"];
  const nameTable = Buffer.from(names.map((name) => `${name}\0`).join(""), "latin1");
  const contents = [
    Buffer.alloc(0),
    ...Object.values(sections).map((text) => Buffer.from(text, "latin1")),
    nameTable,
  ];
  const header = Buffer.alloc(64);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  const dataBytes = contents.reduce((total, content) => total + content.length, 0);
  header.writeBigUInt64LE(BigInt(64 + dataBytes), 0x28);
  header.writeUInt16LE(64, 0x3a);
  header.writeUInt16LE(contents.length, 0x3c);
  header.writeUInt16LE(contents.length - 1, 0x3e);
  let nameOffset = 0;
  let offset = 64;
  const table = contents.map((content, index) => {
    const entry = Buffer.alloc(64);
    entry.writeUInt32LE(nameOffset, 0);
    entry.writeBigUInt64LE(BigInt(offset), 0x18);
    entry.writeBigUInt64LE(BigInt(content.length), 0x20);
    nameOffset += (names[index] ?? "").length + 1;
    offset += content.length;
    return entry;
  });
  return Buffer.concat([header, ...contents, ...table]);
}

/** A kernel module that depends on others. */
export function writeModule(name: string, depends: readonly string[]): Buffer {
  return writeElf({ ".modinfo": `license=GPL\0depends=${depends.join(",")}\0name=${name}\0` });
}

/** A bzImage around a compressed payload (Linux Documentation/arch/x86/boot.rst). */
export function writeBzImage(release: string, payload: Buffer): Buffer {
  const setupSectors = 4;
  const setup = Buffer.alloc((setupSectors + 1) * 512);
  setup.writeUInt8(setupSectors, 0x1f1);
  setup.writeUInt16LE(0xaa55, 0x1fe);
  setup.write("HdrS", 0x202);
  setup.writeUInt16LE(0x020f, 0x206);
  const releaseOffset = 0x400;
  setup.writeUInt16LE(releaseOffset - 0x200, 0x20e);
  setup.write(`${release} (builder@host) #1 SMP\0`, releaseOffset);
  const decompressor = Buffer.alloc(96, 0x90);
  setup.writeUInt32LE(decompressor.length, 0x248);
  setup.writeUInt32LE(payload.length, 0x24c);
  return Buffer.concat([setup, decompressor, payload, Buffer.alloc(128)]);
}
