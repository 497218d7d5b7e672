/** Debian's and Ubuntu's packages of the programs that have other names than these. */
const packages: Readonly<Record<string, string>> = {
  "mkfs.ext4": "e2fsprogs",
  unshare: "util-linux",
  nsenter: "util-linux",
  fallocate: "util-linux",
  cp: "coreutils",
  du: "coreutils",
  env: "coreutils",
  rm: "coreutils",
  sync: "coreutils",
  ip: "iproute2",
  nft: "nftables",
  xz: "xz-utils",
  "qemu-system-x86_64": "qemu-system-x86",
};

/** The package that has a program; its own name when that is not known. */
export function packageOf(program: string): string {
  return packages[program] ?? program;
}
