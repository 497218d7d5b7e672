import { statfs } from "node:fs/promises";
import { join } from "node:path";
import { type Check, type Finding, fail, pass, skip, warn } from "./check.ts";
import { refusalOf } from "./kernel-calls.ts";
import { type DoctorScope, readNumber, readText } from "./scope.ts";

const mib = 1024 * 1024;
/** A small parent of 512 MiB with some children; below the second nothing can be forked. */
const memoryWantedMib = 1024;
const memoryNeededMib = 256;
/** The image of one chain of a parent of 512 MiB, in memory. */
const shmWantedBytes = 512 * mib;
/** statfs(2): TMPFS_MAGIC. */
const tmpfsMagic = 0x0102_1994;
/** vm.overcommit_memory (proc_sys_vm(5)): the kernel refuses what it could not back. */
const overcommitNever = 2;

export const memoryChecks: readonly Check[] = [
  { name: "memory", run: memory },
  { name: "overcommit", run: overcommit },
  { name: "shm", run: shm },
  { name: "uffd_wp", run: userfaultfd },
  { name: "uffd_shmem", run: sharedUserfaultfd },
  { name: "pagemap_scan", run: pagemapScan },
  { name: "memfd_create", run: memfd },
  { name: "ksm", run: ksm },
  { name: "hugepages", run: hugepages },
];

/** A line of /proc/meminfo, in KiB or as a count; undefined when there is none. */
async function memInfo({ roots }: DoctorScope, name: string): Promise<number | undefined> {
  const text = (await readText(join(roots.proc, "meminfo"))) ?? "";
  const value = new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1];
  return value === undefined ? undefined : Number(value);
}

async function memory(scope: DoctorScope): Promise<Finding> {
  const available = Math.floor(((await memInfo(scope, "MemAvailable")) ?? 0) / 1024);
  const detail = `${available} MiB are available`;
  const hint = "ps -eo pid,rss,comm --sort=-rss | head  # or end sandboxes: forkd ls";
  if (available < memoryNeededMib) return fail(detail, hint);
  return available < memoryWantedMib ? warn(detail, hint) : pass(detail);
}

/** Every child maps its parent's memory privately: its size counts, though little is ever taken. */
async function overcommit({ roots }: DoctorScope): Promise<Finding> {
  const mode = await readNumber(join(roots.proc, "sys/vm/overcommit_memory"));
  if (mode !== overcommitNever) return pass(`vm.overcommit_memory is ${mode ?? "not known"}`);
  const detail = "vm.overcommit_memory is 2: each child counts with its whole memory";
  return warn(detail, "sudo sysctl -w vm.overcommit_memory=0");
}

/** Images of chains are kept there, as long as there is room. */
async function shm({ roots }: DoctorScope): Promise<Finding> {
  const dir = join(roots.dev, "shm");
  const mount = `sudo mkdir -p ${dir} && sudo mount -t tmpfs -o nosuid,nodev tmpfs ${dir}`;
  const stats = await statfs(dir).catch(() => undefined);
  if (stats === undefined) return warn(`${dir} is missing; chains are put on disk instead`, mount);
  if (stats.type !== tmpfsMagic) return warn(`${dir} is no tmpfs: memory images go to disk`, mount);
  const free = stats.bavail * stats.bsize;
  const detail = `${Math.floor(free / mib)} MiB are free in ${dir}`;
  if (free >= shmWantedBytes) return pass(detail);
  return warn(detail, `sudo mount -o remount,size=50% ${dir}  # or: forkd cleanup --yes`);
}

const allow = "sudo sysctl -w vm.unprivileged_userfaultfd=1  # or run forkd as root";

async function userfaultfd(): Promise<Finding> {
  const refusal = await refusalOf("userfaultfd", "uffd-wp-private");
  if (refusal === undefined) return pass("pages are write-protected without stopping a guest");
  return warn(`live branches pause for longer: ${refusal}`, allow);
}

async function sharedUserfaultfd(): Promise<Finding> {
  const refusal = await refusalOf("uffd-wp-shmem");
  if (refusal === undefined) return pass("pages of shared memory are, too");
  return warn(`shared memory cannot be write-protected: ${refusal}`, allow);
}

async function pagemapScan(): Promise<Finding> {
  const refusal = await refusalOf("pagemap-scan");
  if (refusal === undefined) return pass("the kernel tells which pages were written");
  const hint = "uname -r  # live branches need Linux 6.7 or later";
  return warn(`live branches are not possible: ${refusal}`, hint);
}

async function memfd(): Promise<Finding> {
  const refusal = await refusalOf("memfd");
  if (refusal === undefined) return pass("works");
  return fail(refusal, "grep Seccomp /proc/self/status  # a filter forbids memfd_create");
}

/** Children share their parent's pages anyway; KSM also merges what they wrote alike. */
async function ksm({ roots }: DoctorScope): Promise<Finding> {
  const dir = join(roots.sys, "kernel/mm/ksm");
  const run = await readNumber(join(dir, "run"));
  const pages = await readNumber(join(dir, "pages_to_scan"));
  if (run === undefined) return skip("this kernel has none; children share pages without it");
  if (run === 1 && (pages ?? 0) > 0) return pass(`scans ${pages} pages at a time`);
  const set = `echo 1000 | sudo tee ${dir}/pages_to_scan && echo 1 | sudo tee ${dir}/run`;
  return skip("off; children share their parent's pages without it", set);
}

async function hugepages(scope: DoctorScope): Promise<Finding> {
  const total = (await memInfo(scope, "HugePages_Total")) ?? 0;
  const free = (await memInfo(scope, "HugePages_Free")) ?? 0;
  const detail = `${free} of ${total} are free`;
  if (total === 0)
    return skip("none set aside; forkd needs none", "sudo sysctl vm.nr_hugepages=512");
  return free > 0 ? pass(detail) : warn(detail, `sudo sysctl vm.nr_hugepages=${total * 2}`);
}
