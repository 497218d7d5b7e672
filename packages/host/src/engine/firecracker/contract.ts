import { z } from "zod";

/**
 * The part of Firecracker's API that forkd uses: which requests there are, what is in them, and
 * what comes back. A test compares it with upstream's own description.
 */

const pathSchema = z.string().min(1).max(4096);

export const bootSourceSchema = z.strictObject({
  kernel_image_path: pathSchema,
  initrd_path: pathSchema.optional(),
  boot_args: z.string().optional(),
});

export const cpuTemplateNames = ["C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"] as const;

export const machineConfigSchema = z.strictObject({
  vcpu_count: z.int().min(1).max(32),
  mem_size_mib: z.int().min(1),
  smt: z.boolean().optional(),
  track_dirty_pages: z.boolean().optional(),
  cpu_template: z.enum(cpuTemplateNames).optional(),
});

/** A custom CPU template: upstream's format, checked by Firecracker itself. */
export const cpuConfigSchema = z.strictObject({
  kvm_capabilities: z.array(z.string()).optional(),
  cpuid_modifiers: z.array(z.record(z.string(), z.unknown())).optional(),
  msr_modifiers: z.array(z.record(z.string(), z.unknown())).optional(),
  reg_modifiers: z.array(z.record(z.string(), z.unknown())).optional(),
  vcpu_features: z.array(z.record(z.string(), z.unknown())).optional(),
});

export const driveSchema = z.strictObject({
  drive_id: z.string().regex(/^\w{1,32}$/),
  path_on_host: pathSchema,
  is_root_device: z.boolean(),
  is_read_only: z.boolean().optional(),
  cache_type: z.enum(["Unsafe", "Writeback"]).optional(),
  io_engine: z.enum(["Sync", "Async"]).optional(),
});

export const networkInterfaceSchema = z.strictObject({
  iface_id: z.string().regex(/^\w{1,32}$/),
  /** A tap; Linux names devices with 15 bytes (IFNAMSIZ). */
  host_dev_name: z.string().min(1).max(15),
  guest_mac: z.string().optional(),
});

export const vsockSchema = z.strictObject({
  guest_cid: z.int().min(3),
  uds_path: pathSchema,
});

export const entropySchema = z.strictObject({});

export const actionSchema = z.strictObject({
  action_type: z.enum(["FlushMetrics", "InstanceStart", "SendCtrlAltDel"]),
});

export const vmSchema = z.strictObject({ state: z.enum(["Paused", "Resumed"]) });

export const snapshotCreateSchema = z.strictObject({
  snapshot_path: pathSchema,
  mem_file_path: pathSchema,
  snapshot_type: z.enum(["Full", "Diff"]).optional(),
});

export const snapshotLoadSchema = z.strictObject({
  snapshot_path: pathSchema,
  mem_backend: z.strictObject({
    backend_type: z.enum(["File", "Uffd"]),
    backend_path: pathSchema,
  }),
  enable_diff_snapshots: z.boolean().optional(),
  track_dirty_pages: z.boolean().optional(),
  resume_vm: z.boolean().optional(),
  network_overrides: z
    .array(z.strictObject({ iface_id: z.string(), host_dev_name: z.string() }))
    .optional(),
  vsock_override: z.strictObject({ uds_path: pathSchema }).optional(),
  clock_realtime: z.boolean().optional(),
});

/** Answers are read loosely: a newer release may say more. */
export const errorReplySchema = z.looseObject({ fault_message: z.string() });
export const versionReplySchema = z.looseObject({ firecracker_version: z.string() });
export const instanceReplySchema = z.looseObject({
  id: z.string(),
  state: z.enum(["Not started", "Running", "Paused"]),
  vmm_version: z.string(),
});

const noReply = z.null();

/** Every request that forkd makes. `path` is upstream's, with its parameters in braces. */
export const endpoints = {
  describe: { method: "GET", path: "/", body: null, reply: instanceReplySchema },
  version: { method: "GET", path: "/version", body: null, reply: versionReplySchema },
  bootSource: { method: "PUT", path: "/boot-source", body: bootSourceSchema, reply: noReply },
  machineConfig: {
    method: "PUT",
    path: "/machine-config",
    body: machineConfigSchema,
    reply: noReply,
  },
  cpuConfig: { method: "PUT", path: "/cpu-config", body: cpuConfigSchema, reply: noReply },
  drive: { method: "PUT", path: "/drives/{drive_id}", body: driveSchema, reply: noReply },
  networkInterface: {
    method: "PUT",
    path: "/network-interfaces/{iface_id}",
    body: networkInterfaceSchema,
    reply: noReply,
  },
  vsock: { method: "PUT", path: "/vsock", body: vsockSchema, reply: noReply },
  entropy: { method: "PUT", path: "/entropy", body: entropySchema, reply: noReply },
  action: { method: "PUT", path: "/actions", body: actionSchema, reply: noReply },
  vm: { method: "PATCH", path: "/vm", body: vmSchema, reply: noReply },
  createSnapshot: {
    method: "PUT",
    path: "/snapshot/create",
    body: snapshotCreateSchema,
    reply: noReply,
  },
  loadSnapshot: {
    method: "PUT",
    path: "/snapshot/load",
    body: snapshotLoadSchema,
    reply: noReply,
  },
} as const satisfies Record<
  string,
  {
    readonly method: "GET" | "PUT" | "PATCH";
    readonly path: string;
    readonly body: z.ZodType | null;
    readonly reply: z.ZodType;
  }
>;

export type EndpointName = keyof typeof endpoints;
export type RequestBody<N extends EndpointName> = (typeof endpoints)[N]["body"] extends z.ZodType
  ? z.input<(typeof endpoints)[N]["body"]>
  : null;
export type Reply<N extends EndpointName> = z.output<(typeof endpoints)[N]["reply"]>;

/** The path of a request: what is in braces comes from the body's member of that name. */
export function pathOf(name: EndpointName, body: unknown): string {
  return endpoints[name].path.replace(/\{(\w+)\}/, (_, key: string) => {
    const value = typeof body === "object" && body !== null ? Reflect.get(body, key) : undefined;
    return encodeURIComponent(String(value));
  });
}
