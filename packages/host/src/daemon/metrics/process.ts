import { readdir } from "node:fs/promises";
import { gauge, type Metric } from "./exposition.ts";

const microsecondsPerSecond = 1e6;

/** The daemon's own needs, under the names that all Prometheus clients give them. */
export async function processMetrics(): Promise<Metric[]> {
  const { user, system } = process.cpuUsage();
  // One of them is the directory itself, being read.
  const files = (await readdir("/proc/self/fd")).length - 1;
  const started = Date.now() / 1000 - process.uptime();
  return [
    gauge(
      "process_resident_memory_bytes",
      "Memory of the daemon itself.",
      process.memoryUsage.rss(),
    ),
    gauge("process_open_fds", "Descriptors that the daemon has open.", files),
    gauge("process_start_time_seconds", "When the daemon started, unix time.", started),
    {
      ...gauge("process_cpu_seconds_total", "Time on processors, the daemon's own.", 0),
      type: "counter",
      samples: [{ value: (user + system) / microsecondsPerSecond }],
    },
  ];
}
