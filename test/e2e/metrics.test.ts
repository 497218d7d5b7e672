/** What Prometheus reads of a real daemon, and the dashboard and alerts that are made of it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Baked, ensureBaked, repoRoot } from "../helpers/baked.ts";
import { missing } from "../helpers/capabilities.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { type OtlpReceiver, openOtlpReceiver } from "../helpers/otlp-receiver.ts";
import { expressionsOfAlerts, expressionsOfDashboard, metricNames } from "../helpers/promql.ts";
import { makeTmpDir } from "../helpers/tmp.ts";

const withoutTool = missing({ programs: ["promtool"] });
const rulesFile = join(repoRoot, "packaging/prometheus/forkd-alerts.yml");
const dashboardFile = join(repoRoot, "packaging/grafana/forkd.json");
/** What other programs of the host tell Prometheus, or Prometheus itself. */
const foreign = new Set(["node_cpu_seconds_total"]);

function promtool(args: readonly string[], input = ""): string {
  const { status, stdout, stderr } = spawnSync("promtool", args, { input, encoding: "utf8" });
  assert.equal(status, 0, `promtool ${args.join(" ")}: ${stdout}${stderr}`);
  return stdout;
}

describe("metrics", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;
  let receiver: OtlpReceiver;
  let scrape = "";

  /** The value of one sample, as it is written in the scrape. */
  const value = (sample: string): number => {
    const line = scrape.split("\n").find((each) => each.startsWith(`${sample} `));
    assert.ok(line !== undefined, `${sample} is not in:\n${scrape}`);
    return Number(line.slice(sample.length + 1));
  };

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("metrics", baked);
    receiver = await openOtlpReceiver();
    process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url;
    daemon = await startDaemon(data.path);
    delete process.env["OTEL_EXPORTER_OTLP_ENDPOINT"];
    const { client } = daemon;
    const [first, second] = await client.createSandboxes({
      body: { snapshot_tag: baked.tag, n: 2 },
    });
    assert.ok(first !== undefined && second !== undefined);
    const params = { id: first.id };
    await client.execSandbox({ params, body: { args: ["true"] } });
    await client.evalSandbox({ params, body: { code: "1 + 1" } });
    await client.branchSandbox({ params, body: { tag: "metrics-branch", mode: "diff" } });
    await client.deleteSandbox({ params });
    const strange = { snapshot_tag: "no-such-tag", n: 1 };
    await assert.rejects(client.createSandboxes({ body: strange }));
    scrape = await client.metrics();
  });
  after(async () => {
    await daemon?.killAll();
    await receiver?.[Symbol.asyncDispose]();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  test("upstream's names are there, with what is true", () => {
    assert.match(scrape, /^forkd_build_info\{version="[\d.]+[^"]*"\} 1$/m);
    assert.equal(value("forkd_sandboxes_active"), 1);
    assert.equal(value("forkd_snapshots_total"), 2);
    assert.equal(value("forkd_branches_in_flight"), 0);
    assert.equal(value("forkd_branch_concurrency_cap"), 4);
  });

  test("each operation is counted by how it ended, and timed", () => {
    assert.equal(value('forkd_operations_total{operation="spawn",outcome="ok"}'), 1);
    const failed = 'forkd_operations_total{operation="spawn",outcome="snapshot_not_found"}';
    assert.equal(value(failed), 1);
    for (const phase of ["process", "restored", "identity"]) {
      assert.equal(value(`forkd_spawn_seconds_count{phase="${phase}"}`), 2);
      assert.equal(value(`forkd_spawn_seconds_bucket{phase="${phase}",le="+Inf"}`), 2);
    }
    for (const name of ["exec", "eval", "branch", "branch_pause"]) {
      assert.equal(value(`forkd_${name}_seconds_count`), 1);
      assert.ok(value(`forkd_${name}_seconds_sum`) > 0);
    }
    assert.equal(value("forkd_identity_seconds_count"), 2);
    assert.equal(value('forkd_sandbox_ends_total{reason="killed"}'), 1);
    assert.equal(value('forkd_sandboxes{state="running"}'), 1);
    assert.equal(value('forkd_http_answers_total{status="404"}'), 1);
    const route = 'method="POST",route="/v1/sandboxes"';
    assert.equal(value(`forkd_http_request_seconds_count{${route}}`), 2);
    assert.ok(value("process_open_fds") > 10);
    assert.ok(value("forkd_storage_free_bytes") < value("forkd_storage_size_bytes"));
  });

  test("the same work is traced", async () => {
    const names = ["spawn", "child", "start", "restore", "identity", "exec", "branch", "kill"];
    const [spawn, child, start, restore, identity, exec, branch] = await receiver.waitFor(...names);
    assert.equal(spawn?.attributes["forkd.children"], 2);
    assert.equal(child?.parentSpanId, spawn?.spanId);
    for (const phase of [start, restore, identity]) {
      assert.ok(phase !== undefined && phase.endNs > phase.startNs, phase?.name);
      assert.equal(phase.parentSpanId, child?.spanId);
    }
    assert.equal(exec?.attributes["forkd.outcome"], "ok");
    assert.equal(branch?.attributes["forkd.snapshot_tag"], "metrics-branch");
    assert.ok(Number(branch?.attributes["forkd.pause_ms"]) > 0);
  });

  test("promtool finds nothing to say about ours", { skip: withoutTool }, () => {
    const { stderr } = spawnSync("promtool", ["check", "metrics"], {
      input: scrape,
      encoding: "utf8",
    });
    // The name is upstream's, and clients know it.
    const known = 'forkd_snapshots_total non-counter metrics should not have "_total" suffix';
    assert.deepEqual(stderr.trim().split("\n"), [known]);
  });

  test("dashboard and alerts ask for nothing that is not there", () => {
    const there = metricNames(scrape);
    const asked = [...expressionsOfDashboard(dashboardFile), ...expressionsOfAlerts(rulesFile)];
    assert.ok(asked.length > 30, String(asked.length));
    for (const expression of asked) {
      const names = expression.match(/\b(?:forkd|process|node|nodejs)_[a-z0-9_]+\b/g) ?? [];
      assert.ok(names.length > 0, expression);
      // What a bound refuses is only counted once it has.
      const known = (name: string): boolean =>
        there.has(name) || foreign.has(name) || name === "forkd_http_refused_total";
      for (const name of names) assert.ok(known(name), `${name}, of ${expression}`);
    }
  });
});

test("promtool accepts the alerts, the scrape and every expression", {
  skip: withoutTool,
}, async () => {
  promtool(["check", "rules", rulesFile]);
  const config = join(repoRoot, "packaging/prometheus/scrape.yml");
  promtool(["check", "config", "--syntax-only", config]);
  await using dir = await makeTmpDir("promql");
  const rules = expressionsOfDashboard(dashboardFile).map((expression, number) => ({
    record: `dashboard:expression:${number}`,
    expr: expression,
  }));
  const file = join(dir.path, "rules.json");
  // YAML is a superset of JSON.
  writeFileSync(file, JSON.stringify({ groups: [{ name: "dashboard", rules }] }));
  promtool(["check", "rules", file]);
});

test("alerts fire when they should, and not before", { skip: withoutTool }, async () => {
  await using dir = await makeTmpDir("promql");
  const file = join(dir.path, "tests.json");
  writeFileSync(file, JSON.stringify({ rule_files: [rulesFile], ...alertTests }));
  promtool(["test", "rules", file]);
});

const gib = 1024 ** 3;
const instance = 'instance="a"';
/** Series, the time, and the alerts that are to fire then; promtool's own format. */
const alertTests = {
  evaluation_interval: "1m",
  tests: [
    {
      interval: "1m",
      input_series: [{ series: `forkd_build_info{${instance}}`, values: "1 1 _x10" }],
      alert_rule_test: [
        { eval_time: "1m", alertname: "ForkdDaemonDown", exp_alerts: [] },
        { eval_time: "10m", alertname: "ForkdDaemonDown", exp_alerts: [fires("critical")] },
      ],
    },
    {
      interval: "1m",
      input_series: [
        { series: `forkd_storage_free_bytes{${instance}}`, values: `${6 * gib}x5 ${3 * gib}x20` },
      ],
      alert_rule_test: [
        { eval_time: "4m", alertname: "ForkdStorageLow", exp_alerts: [] },
        { eval_time: "20m", alertname: "ForkdStorageFull", exp_alerts: [] },
      ],
    },
    {
      interval: "1m",
      input_series: [
        {
          series: `forkd_sandbox_ends_total{${instance},reason="oom"}`,
          values: "0x10 1x30",
        },
      ],
      alert_rule_test: [
        { eval_time: "9m", alertname: "ForkdSandboxesOutOfMemory", exp_alerts: [] },
        {
          eval_time: "12m",
          alertname: "ForkdSandboxesOutOfMemory",
          exp_alerts: [fires("warning", { instance: "a" })],
        },
        { eval_time: "30m", alertname: "ForkdSandboxesOutOfMemory", exp_alerts: [] },
      ],
    },
  ],
};

/** An alert's labels and the annotations that the file gives it, which promtool compares too. */
function fires(severity: string, labels: Record<string, string> = {}) {
  return { exp_labels: { severity, ...labels }, exp_annotations: annotationsOf(severity) };
}

function annotationsOf(severity: string): Record<string, string> {
  const text = readFileSync(rulesFile, "utf8");
  return severity === "critical"
    ? { summary: line(text, "not reachable"), runbook: line(text, "systemctl status") }
    : {
        summary: line(text, "were killed").replace("{{ $labels.instance }}", "a"),
        runbook: line(text, "raise memory_limit_mib"),
      };
}

function line(text: string, words: string): string {
  const found = text.split("\n").find((each) => each.includes(words)) ?? assert.fail(words);
  return found.replace(/^\s*\w+: /, "").replaceAll('"', "");
}
