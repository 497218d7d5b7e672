import { ForkdError } from "@forkd/api";
import type { Vm } from "../engine/engine.ts";
import {
  type FileKey,
  fileKey,
  type WritableFile,
  writableFiles,
} from "../linux/writable-files.ts";

interface Admitted {
  readonly name: string;
  readonly files: readonly FileKey[];
}

/**
 * Sees to it that no two live VMs can write the same file, and that none can write what others
 * only read: by what the kernel says that each VMM has open, not by what it was told to open.
 *
 * It knows the VMs of one owner. QEMU itself locks the disk that it writes, which also keeps VMs of
 * different owners apart.
 */
export class DiskGuard {
  readonly #admitted = new Map<Vm, Admitted>();
  readonly #writers = new Map<FileKey, Vm>();

  /**
   * Looks at a VM, before it first runs and after each change of its disks. `readOnly` is what it
   * shares with others. Throws disk_shared: then the VM must not run, and is not remembered.
   */
  async admit(vm: Vm, name: string, readOnly: readonly string[]): Promise<void> {
    const shared = readOnly.map((path) => ({ key: fileKey(path), path }));
    const files = await writableFiles(vm.process.pid);
    for (const file of files) {
      if (shared.some(({ key }) => key === file.key)) throw refused(name, file, "others read");
      const writer = this.#writerBesides(vm, file);
      if (writer !== undefined) throw refused(name, file, `the VM of ${writer} writes`);
    }
    for (const file of shared) {
      const writer = this.#writerBesides(vm, file);
      if (writer !== undefined) throw refused(writer, file, `the VM of ${name} reads`);
    }
    this.#remember(vm, { name, files: files.map(({ key }) => key) });
  }

  /** The name of another VM that can write the file. */
  #writerBesides(vm: Vm, { key }: WritableFile): string | undefined {
    const writer = this.#writers.get(key);
    return writer === vm || writer === undefined ? undefined : this.#admitted.get(writer)?.name;
  }

  #remember(vm: Vm, admitted: Admitted): void {
    const before = this.#admitted.get(vm);
    if (before === undefined) void vm.ended.then(() => this.#forget(vm));
    else this.#forget(vm);
    this.#admitted.set(vm, admitted);
    for (const key of admitted.files) this.#writers.set(key, vm);
  }

  #forget(vm: Vm): void {
    for (const key of this.#admitted.get(vm)?.files ?? []) this.#writers.delete(key);
    this.#admitted.delete(vm);
  }
}

function refused(name: string, { path }: WritableFile, why: string): ForkdError {
  return new ForkdError("disk_shared", `the VM of ${name} could write ${path}, which ${why}`);
}
