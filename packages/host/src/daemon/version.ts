export { packageVersion as daemonVersion } from "../lib/version.ts";
