import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { skipWithout } from "../helpers/capability.ts";
import { FakeFirecracker } from "../helpers/fake-firecracker.ts";
import { FirecrackerTalk, type TalkStep } from "../helpers/firecracker-talk.ts";
import { writeTinyGuest } from "../helpers/tiny-guest.ts";

/**
 * What Firecracker 1.16.1 answered, word for word: the engine's tests are worth as much as its
 * stand-in is like it. Both are asked the same.
 */

type Line = readonly [...TalkStep, answer: string];
/** `ends`: by itself, when the last line is answered. */
interface Talk {
  readonly about: string;
  readonly needsKvm?: boolean;
  readonly ends?: boolean;
  readonly lines: readonly Line[];
}

const form = "An error occurred when deserializing the json body of a request:";
const drive = { drive_id: "root", is_root_device: false, is_read_only: true };
const scratch = { drive_id: "scratch", is_root_device: false, path_on_host: "junk" };
const machine = { vcpu_count: 1, mem_size_mib: 64 };
const paused = { state: "Paused" };
const resumed = { state: "Resumed" };
const start = { action_type: "InstanceStart" };
const saved = { snapshot_path: "s", mem_file_path: "m" };
const from = (snapshot: string, memory: string, vsock?: string) => ({
  snapshot_path: snapshot,
  mem_backend: { backend_type: "File", backend_path: memory },
  ...(vsock !== undefined && { vsock_override: { uds_path: vsock } }),
});
const tooEarly = "The requested operation is not supported before starting the microVM";
const tooLate = "The requested operation is not supported after starting the microVM";
const notLoaded = "Load snapshot error: Failed to restore from snapshot:";
const badState = `${notLoaded} Failed to get snapshot state from file:`;
const badFile = `${badState} Failed to load snapshot state from file:`;
const badMemory = `${notLoaded} Failed to load guest memory: Error creating guest memory from file:`;
const badDevice = `${notLoaded} Failed to build microVM from snapshot: Failed to restore devices:`;
const vcpus =
  "Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 " +
  "or an even number if SMT is enabled";
const badDrive = "Drive config error: Unable to create the virtio block device:";

const talks: readonly Talk[] = [
  {
    about: "the form of requests",
    lines: [
      ["PUT", "/nothing/at/all", {}, "Invalid request method and/or path: PUT nothing"],
      ["PUT", "/machine-config", null, "Empty PUT request"],
      ["PATCH", "/vm", null, "Empty PATCH request"],
      ["PUT", "/machine-config", { vcpu_count: 1 }, `${form} missing field \`mem_size_mib\``],
      ["PUT", "/machine-config", { ...machine, odd: 1 }, `${form} unknown field \`odd\``],
      ["PATCH", "/vm", { state: "Odd" }, `${form} unknown variant \`Odd\``],
      ["PUT", "/drives/other", drive, "The id from the path does not match the id from the body!"],
      [
        "PUT",
        "/drives/a-b",
        { ...drive, drive_id: "a-b" },
        "API Resource IDs can only contain alphanumeric characters and underscores",
      ],
      [
        "PUT",
        "/snapshot/load",
        { snapshot_path: "s" },
        `${form} missing field: either \`mem_backend\` or \`mem_file_path\` is required`,
      ],
      [
        "PUT",
        "/snapshot/load",
        { ...from("s", "m"), mem_file_path: "m" },
        `${form} too many fields: either \`mem_backend\` or \`mem_file_path\` exclusively is required`,
      ],
    ],
  },
  {
    about: "settings that cannot be",
    lines: [
      ["PUT", "/machine-config", { ...machine, vcpu_count: 0 }, vcpus],
      ["PUT", "/machine-config", { ...machine, vcpu_count: 33 }, vcpus],
      ["PUT", "/machine-config", { ...machine, vcpu_count: 3, smt: true }, vcpus],
      [
        "PUT",
        "/machine-config",
        { ...machine, mem_size_mib: 0 },
        "Machine config error: The memory size (MiB) is either 0, or not a multiple of the " +
          "configured page size",
      ],
      [
        "PUT",
        "/boot-source",
        { kernel_image_path: "none" },
        "Boot source error: The kernel file cannot be opened: (os error 2)",
      ],
      [
        "PUT",
        "/boot-source",
        { kernel_image_path: "junk", initrd_path: "none" },
        "Boot source error: The initrd file cannot be opened due to invalid path or invalid " +
          "permissions. (os error 2)",
      ],
      [
        "PUT",
        "/drives/root",
        { ...drive, path_on_host: "none" },
        `${badDrive} Virtio backend error: Error manipulating the backing file: (os error 2) none`,
      ],
      ["PUT", "/drives/root", drive, `${badDrive} Invalid block config`],
      ["PUT", "/drives/root", { ...drive, path_on_host: "junk" }, "204"],
      ["PUT", "/drives/root", { ...drive, path_on_host: "junk" }, "204"],
      ["PUT", "/vsock", { guest_cid: 3, uds_path: "a.sock" }, "204"],
      ["PUT", "/vsock", { guest_cid: 3, uds_path: "a.sock" }, "204"],
      [
        "PUT",
        "/vsock",
        { guest_cid: 3, uds_path: "junk" },
        "Vsock config error: Cannot create backend for vsock device: Error binding to the " +
          "host-side Unix socket: (os error 98)",
      ],
      [
        "PUT",
        "/network-interfaces/eth0",
        { iface_id: "eth0", host_dev_name: "a-name-of-sixteen" },
        "Network config error: Could not create the network device: Open tap device failed: " +
          "Invalid interface name",
      ],
      [
        "PUT",
        "/snapshot/load",
        from("junk", "junk"),
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring " +
          "boot-specific resources",
      ],
    ],
  },
  {
    about: "what needs a guest, and a guest that cannot be",
    lines: [
      ["PATCH", "/vm", paused, tooEarly],
      ["PATCH", "/vm", resumed, tooEarly],
      ["PUT", "/snapshot/create", saved, tooEarly],
      ["PATCH", "/drives/root", { drive_id: "root", path_on_host: "junk" }, tooEarly],
      [
        "PUT",
        "/actions",
        start,
        "Start microvm error: Cannot start microvm without kernel configuration",
      ],
      ["PUT", "/cpu-config", {}, "204"],
      ["PUT", "/boot-source", { kernel_image_path: "junk" }, "204"],
    ],
  },
  {
    about: "a kernel that is none",
    needsKvm: true,
    lines: [
      ["PUT", "/boot-source", { kernel_image_path: "junk" }, "204"],
      [
        "PUT",
        "/actions",
        start,
        "Start microvm error: System configuration error: Cannot load kernel due to invalid " +
          "memory configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel " +
          "image: Kernel Loader: Invalid Elf magic number",
      ],
    ],
  },
  {
    about: "a state that is not there",
    ends: true,
    lines: [
      ["PUT", "/cpu-config", {}, "204"],
      [
        "PUT",
        "/snapshot/load",
        from("none", "junk"),
        `${badState} Failed to open snapshot file: (os error 2)`,
      ],
    ],
  },
  {
    about: "an empty state",
    ends: true,
    lines: [
      [
        "PUT",
        "/snapshot/load",
        from("empty", "junk"),
        `${badFile} IO Error: File too short to contain CRC`,
      ],
    ],
  },
  {
    about: "a state that is none",
    ends: true,
    lines: [
      [
        "PUT",
        "/snapshot/load",
        from("junk", "junk"),
        `${badFile} An error occurred during bitcode serialization: bitcode error`,
      ],
    ],
  },
  {
    about: "a guest that runs, is paused and saved",
    needsKvm: true,
    lines: [
      ["PUT", "/machine-config", machine, "204"],
      ["PUT", "/boot-source", { kernel_image_path: "kernel" }, "204"],
      ["PUT", "/drives/root", { ...drive, path_on_host: "junk" }, "204"],
      ["PUT", "/drives/scratch", scratch, "204"],
      ["PUT", "/vsock", { guest_cid: 3, uds_path: "v.sock" }, "204"],
      ["PUT", "/entropy", {}, "204"],
      ["PUT", "/actions", start, "204"],
      ["PUT", "/actions", start, tooLate],
      ["PUT", "/drives/scratch", scratch, "PCI is not enabled"],
      ["PUT", "/boot-source", { kernel_image_path: "kernel" }, tooLate],
      ["PUT", "/machine-config", machine, tooLate],
      ["PUT", "/snapshot/load", from("s", "m"), tooLate],
      [
        "PUT",
        "/snapshot/create",
        saved,
        "Create snapshot error: Cannot save the microVM state: Operation not allowed: " +
          "save/restore unavailable while running",
      ],
      ["PATCH", "/vm", resumed, "204"],
      ["PATCH", "/vm", paused, "204"],
      ["PATCH", "/vm", paused, "204"],
      [
        "PUT",
        "/snapshot/create",
        { ...saved, snapshot_path: "no/s" },
        "Create snapshot error: Cannot perform open on the snapshot backing file: (os error 2)",
      ],
      [
        "PUT",
        "/snapshot/create",
        { ...saved, mem_file_path: "no/m" },
        "Create snapshot error: Cannot perform open on the memory backing file: (os error 2)",
      ],
      // Without a record of writes it is what was touched at all.
      ["PUT", "/snapshot/create", { ...saved, snapshot_type: "Diff" }, "204"],
      ["PUT", "/snapshot/create", saved, "204"],
      [
        "PATCH",
        "/drives/none",
        { drive_id: "none", path_on_host: "junk" },
        "Drive config error: Unable to patch the block device: Failed perform action on device: " +
          "Device not found Please verify the request arguments",
      ],
      ["PATCH", "/vm", resumed, "204"],
    ],
  },
  {
    about: "a load beside the guest whose vsock it has",
    needsKvm: true,
    ends: true,
    lines: [
      [
        "PUT",
        "/snapshot/load",
        from("s", "m"),
        `${badDevice} Error restoring MMIO devices: VsockUnixBackend: Error binding to the ` +
          "host-side Unix socket: (os error 98)",
      ],
    ],
  },
  {
    about: "a load without its memory",
    needsKvm: true,
    ends: true,
    lines: [
      [
        "PUT",
        "/snapshot/load",
        from("s", "none", "w1.sock"),
        `${badMemory} Failed to load guest memory: (os error 2)`,
      ],
    ],
  },
  {
    about: "a load of a memory that is too small",
    needsKvm: true,
    ends: true,
    lines: [
      [
        "PUT",
        "/snapshot/load",
        from("s", "junk", "w2.sock"),
        `${badMemory} Failed to restore guest memory: Total sum of memory regions exceeds largest ` +
          "possible file offset",
      ],
    ],
  },
  {
    about: "a load with a card that the guest has not",
    needsKvm: true,
    ends: true,
    lines: [
      [
        "PUT",
        "/snapshot/load",
        { ...from("s", "m"), network_overrides: [{ iface_id: "eth0", host_dev_name: "t" }] },
        `${badState} Unknown Network Device`,
      ],
    ],
  },
  {
    about: "a load, and diffs of it",
    needsKvm: true,
    lines: [
      ["PUT", "/snapshot/load", { ...from("s", "m", "w3.sock"), track_dirty_pages: true }, "204"],
      ["PUT", "/snapshot/load", from("s", "m"), tooLate],
      ["PATCH", "/vm", resumed, "204"],
      ["PATCH", "/vm", paused, "204"],
      [
        "PUT",
        "/snapshot/create",
        { snapshot_path: "s2", mem_file_path: "d", snapshot_type: "Diff" },
        "204",
      ],
    ],
  },
];

const root = await mkdtemp(join(tmpdir(), "forkd-fcw-"));
after(() => rm(root, { recursive: true, force: true }));

/** Set by `npm run test:firecracker -- --binary PATH`. */
const real = process.env["FORKD_TEST_FIRECRACKER"] ?? "";
const noKvm = skipWithout("root", "kvm");

async function makeFiles(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, "kernel"), writeTinyGuest());
  await writeFile(join(dir, "junk"), "not a kernel".repeat(100));
  await writeFile(join(dir, "empty"), "");
}

/** In order: later talks load what an earlier one has saved. */
function answers(who: string, find: () => Promise<string>): void {
  const dir = join(root, who);
  let binary = "";
  before(async () => {
    binary = await find();
    await makeFiles(dir);
  });
  for (const [index, { about, lines, ends = false, needsKvm = false }] of talks.entries()) {
    test(about, { skip: who === "firecracker" && needsKvm && noKvm }, async () => {
      await using talk = await FirecrackerTalk.start(binary, dir, `${index}.api`);
      for (const [method, path, body, answer] of lines) {
        assert.equal(await talk.say([method, path, body]), answer, `${method} ${path}`);
      }
      if (ends) await talk.end();
    });
  }
}

const makeFake = async (): Promise<string> =>
  (await FakeFirecracker.make(join(root, "fake"))).binary;

describe("answers of the stand-in", { skip: skipWithout("compiler") }, () => {
  answers("the stand-in", makeFake);
});

const noBinary = real === "" && "needs a Firecracker: npm run test:firecracker -- --binary PATH";
describe("answers of a real Firecracker", { skip: noBinary }, () => {
  answers("firecracker", async () => real);
});
