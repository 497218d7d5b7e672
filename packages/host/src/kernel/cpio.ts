/**
 * Writer for the "newc" cpio archive that the kernel unpacks as its initramfs (format: Linux
 * Documentation/driver-api/early-userspace/buffer-format.rst). Output depends on the entries alone:
 * names are sorted, times and inode numbers are not taken from the host.
 */
export type CpioEntry =
  | { readonly kind: "dir"; readonly name: string; readonly mode: number }
  | {
      readonly kind: "file";
      readonly name: string;
      readonly mode: number;
      readonly data: Uint8Array;
    }
  | {
      readonly kind: "char";
      readonly name: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

/** File type bits of st_mode (inode(7)). */
const typeBits = { dir: 0o040000, file: 0o100000, char: 0o020000 } as const;

const nameBytesMax = 4095;
const noData = new Uint8Array(0);

/** The archive for these entries. Throws RangeError for a name that the kernel could not unpack. */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const sorted = [...entries].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const chunks = sorted.flatMap((entry, index) => {
    checkName(entry.name, sorted[index - 1]?.name);
    return writeEntry(entry, index + 1);
  });
  const trailer = headerBlock({ name: "TRAILER!!!", inode: 0, mode: 0, links: 1 });
  return Buffer.concat([...chunks, trailer]);
}

function checkName(name: string, previous: string | undefined): void {
  const parts = name.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..") || name.includes("\0")) {
    throw new RangeError(`"${name}" is no relative path in normal form`);
  }
  if (Buffer.byteLength(name) > nameBytesMax) throw new RangeError("a cpio name is too long");
  if (name === previous) throw new RangeError(`"${name}" is in the archive twice`);
}

function writeEntry(entry: CpioEntry, inode: number): Uint8Array[] {
  const data = entry.kind === "file" ? entry.data : noData;
  const header = headerBlock({
    name: entry.name,
    inode,
    mode: typeBits[entry.kind] | entry.mode,
    links: entry.kind === "dir" ? 2 : 1,
    size: data.length,
    device: entry.kind === "char" ? entry : undefined,
  });
  return [header, data, padding(data.length)];
}

interface Header {
  readonly name: string;
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
  readonly size?: number;
  readonly device?: { readonly major: number; readonly minor: number } | undefined;
}

function headerBlock(header: Header): Buffer {
  const name = Buffer.from(`${header.name}\0`);
  const { major, minor } = header.device ?? { major: 0, minor: 0 };
  const noOwner = [0, 0];
  const time = 0;
  const onDevice = [0, 0];
  const checksum = 0;
  const fields = [
    header.inode,
    header.mode,
    ...noOwner,
    header.links,
    time,
    header.size ?? 0,
    ...onDevice,
    major,
    minor,
    name.length,
    checksum,
  ];
  const text = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
  return Buffer.concat([Buffer.from(text), name, padding(text.length + name.length)]);
}

/** Headers with names, and data, each end at a multiple of four. */
function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
