/** `copying.ts FROM TO`: copies a file as a disk of Firecracker is copied. */
import { copyPlain } from "@forkd/host/engine/firecracker/files.ts";

const [from = "", to = ""] = process.argv.slice(2);
await copyPlain(from, to);
