/** A member of a test archive. Names are taken as they are, hostile ones too. */
export interface TarMember {
  readonly name: string;
  readonly type?: "file" | "hardlink" | "symlink" | "dir" | "fifo";
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly data?: string | Uint8Array;
  readonly linkTo?: string;
  readonly xattrs?: Readonly<Record<string, string | Uint8Array>>;
}

/** Type flags of the ustar header (POSIX.1-2001, pax). */
const typeFlags = { file: "0", hardlink: "1", symlink: "2", dir: "5", fifo: "6" } as const;

/** A tar archive with exactly these members, attributes in pax records as GNU tar writes them. */
export function writeTar(members: readonly TarMember[]): Buffer {
  return Buffer.concat([...members.flatMap(writeMember), Buffer.alloc(1024)]);
}

function writeMember(member: TarMember): Buffer[] {
  const data = Buffer.from(member.data ?? "");
  const records = Object.entries(member.xattrs ?? {}).map(([name, value]) =>
    paxRecord(`SCHILY.xattr.${name}`, Buffer.from(value)),
  );
  const header = ustarHeader(member, data.length);
  if (records.length === 0) return [header, padded(data)];
  const pax = Buffer.concat(records);
  const paxHeader = ustarHeader({ name: "pax", type: "file" }, pax.length, "x");
  return [paxHeader, padded(pax), header, padded(data)];
}

/** "LENGTH KEY=VALUE\n", where LENGTH counts itself. */
function paxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from("\n")]);
  const digits = `${rest.length}`.length;
  const length = rest.length + digits;
  const total = `${length}`.length === digits ? length : length + 1;
  return Buffer.concat([Buffer.from(`${total}`), rest]);
}

function ustarHeader(member: TarMember, size: number, flag?: string): Buffer {
  const header = Buffer.alloc(512);
  const type = member.type ?? "file";
  header.write(member.name, 0, 100);
  header.write(octal(member.mode ?? (type === "dir" ? 0o755 : 0o644), 8), 100);
  header.write(octal(member.uid ?? 0, 8), 108);
  header.write(octal(member.gid ?? 0, 8), 116);
  header.write(octal(size, 12), 124);
  header.write(octal(1_600_000_000, 12), 136);
  header.write("        ", 148);
  header.write(flag ?? typeFlags[type], 156);
  header.write(member.linkTo ?? "", 157, 100);
  header.write("ustar\0" + "00", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return header;
}

function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, "0")}\0`;
}

function padded(data: Buffer): Buffer {
  return Buffer.concat([data, Buffer.alloc((512 - (data.length % 512)) % 512)]);
}
