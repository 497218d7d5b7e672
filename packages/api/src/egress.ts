import { z } from "zod";
import { limits } from "./limits.ts";

const portMax = 65_535;

/** One port, or a range such as `8000-8010`. */
const portsSchema = z.union([
  z.int().min(1).max(portMax),
  z
    .string()
    .regex(/^[1-9]\d{0,4}-[1-9]\d{0,4}$/)
    .refine((text) => {
      const [from = 0, to = 0] = text.split("-").map(Number);
      return from <= to && to <= portMax;
    }, "write the lower port first, none above 65535"),
]);

/** An address, or a network as address and prefix. */
const cidrSchema = z.union([z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()]);

/** Where traffic goes to. Without ports, a rule means all of them; `any` is any protocol then. */
export const egressRuleSchema = z.strictObject({
  cidr: cidrSchema,
  ports: z.array(portsSchema).max(limits.egressPortsMax).default([]),
  protocol: z.enum(["tcp", "udp", "any"]).default("any"),
});
export type EgressRule = z.infer<typeof egressRuleSchema>;

const rulesSchema = z.array(egressRuleSchema).max(limits.egressRulesMax).default([]);

/**
 * What a sandbox may reach; docs/network.md. `deny` wins over `allow`, `allow` over `default`. A
 * field that is not known is refused: a policy that is not understood must not be guessed.
 */
export const egressSchema = z.strictObject({
  default: z.enum(["deny", "allow"]).default("deny"),
  allow: rulesSchema,
  deny: rulesSchema,
  /** Whether the host's name servers answer it. Absent: when `default` is `allow`. */
  dns: z.boolean().optional(),
});
export type Egress = z.infer<typeof egressSchema>;
export type EgressInput = z.input<typeof egressSchema>;

/** What a sandbox with a network gets that asks for nothing: nothing. */
export const egressNothing: Egress = { default: "deny", allow: [], deny: [], dns: false };
