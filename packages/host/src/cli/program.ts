import { Command, CommanderError, Option } from "commander";
import { engineChoices } from "../config/engine-settings.ts";
import { attachVerb } from "./commands/attach.ts";
import { auditVerifyVerb } from "./commands/audit-verify.ts";
import { branchVerb } from "./commands/branch.ts";
import { checkVerb } from "./commands/check.ts";
import { cleanupVerb } from "./commands/cleanup.ts";
import { cpVerb } from "./commands/cp.ts";
import { doctorVerb } from "./commands/doctor.ts";
import { evalVerb } from "./commands/eval.ts";
import { execVerb } from "./commands/exec.ts";
import { execsVerb } from "./commands/execs.ts";
import { firecrackerInstallVerb } from "./commands/firecracker-install.ts";
import { forkVerb } from "./commands/fork.ts";
import { fromImageVerb } from "./commands/from-image.ts";
import { hubIndexVerb } from "./commands/hub-index.ts";
import { hubLsVerb } from "./commands/hub-ls.ts";
import { imagesVerb } from "./commands/images.ts";
import { inspectVerb } from "./commands/inspect.ts";
import { kernelInstallVerb } from "./commands/kernel-install.ts";
import { kernelLsVerb } from "./commands/kernel-ls.ts";
import { killVerb } from "./commands/kill.ts";
import { leaksVerb } from "./commands/leaks.ts";
import { logsVerb } from "./commands/logs.ts";
import { lsVerb } from "./commands/ls.ts";
import {
  netnsHostTapVerb,
  netnsLsVerb,
  netnsSetupVerb,
  netnsTeardownVerb,
} from "./commands/netns.ts";
import { packVerb } from "./commands/pack.ts";
import { pingVerb } from "./commands/ping.ts";
import { pullVerb } from "./commands/pull.ts";
import { pushVerb } from "./commands/push.ts";
import { quickstartVerb } from "./commands/quickstart.ts";
import { rmiVerb } from "./commands/rmi.ts";
import { runVerb } from "./commands/run.ts";
import { snapshotVerb } from "./commands/snapshot.ts";
import { snapshotCompactVerb } from "./commands/snapshot-compact.ts";
import { snapshotDiffVerb } from "./commands/snapshot-diff.ts";
import { snapshotInfoVerb } from "./commands/snapshot-info.ts";
import { spawnVerb } from "./commands/spawn.ts";
import { treeVerb } from "./commands/tree.ts";
import { unpackVerb } from "./commands/unpack.ts";
import { versionVerb } from "./commands/version.ts";
import { whereVerb } from "./commands/where.ts";
import { daemonUrlDefault } from "./context.ts";
import { exitCodesHelp } from "./exit.ts";
import { cliVersion } from "./parse.ts";
import type { Verb } from "./verb.ts";

/** Called with the command that the command line chose. */
export type OnVerb = (verb: Verb, command: Command) => Promise<void>;

const verbs: readonly Verb[] = [
  quickstartVerb,
  fromImageVerb,
  snapshotVerb,
  forkVerb,
  runVerb,
  imagesVerb,
  treeVerb,
  snapshotDiffVerb,
  snapshotInfoVerb,
  snapshotCompactVerb,
  packVerb,
  unpackVerb,
  pushVerb,
  pullVerb,
  rmiVerb,
  spawnVerb,
  lsVerb,
  inspectVerb,
  logsVerb,
  killVerb,
  branchVerb,
  cpVerb,
  execVerb,
  execsVerb,
  attachVerb,
  evalVerb,
  pingVerb,
];

const netnsVerbs: readonly Verb[] = [
  netnsSetupVerb,
  netnsTeardownVerb,
  netnsLsVerb,
  netnsHostTapVerb,
];

const hostVerbs: readonly Verb[] = [
  doctorVerb,
  cleanupVerb,
  checkVerb,
  leaksVerb,
  whereVerb,
  versionVerb,
];

/** The whole command tree; also what docs/cli.md is generated from. */
export function buildProgram(onVerb: OnVerb): Command {
  const program = new Command("forkd")
    .description("Fork warmed microVMs: boot a parent once, warm it once, fork it many times.")
    .version(cliVersion(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    // main prints every failure itself: as text, or as JSON.
    .configureOutput({ outputError: () => undefined })
    .addHelpText("after", exitCodesHelp);
  for (const option of commonOptions()) program.addOption(option);
  for (const verb of verbs) addVerb(program, verb, onVerb);
  const kernel = program.command("kernel").description("manage the guest kernels of this host");
  for (const verb of [kernelInstallVerb, kernelLsVerb]) addVerb(kernel, verb, onVerb);
  const hub = program.command("hub").description("list and publish packs that others can pull");
  for (const verb of [hubLsVerb, hubIndexVerb]) addVerb(hub, verb, onVerb);
  const firecracker = program.command("firecracker").description("manage Firecracker's programs");
  addVerb(firecracker, firecrackerInstallVerb, onVerb);
  const netns = program.command("netns").description("manage the children's network namespaces");
  for (const verb of netnsVerbs) addVerb(netns, verb, onVerb);
  const audit = program.command("audit").description("look at the audit log of this host");
  addVerb(audit, auditVerifyVerb, onVerb);
  for (const verb of hostVerbs) addVerb(program, verb, onVerb);
  return program;
}

function addVerb(parent: Command, verb: Verb, onVerb: OnVerb): void {
  const command = verb.describe(new Command());
  command.copyInheritedSettings(parent);
  command.addHelpText("after", exitCodesHelp);
  command.action(() => onVerb(verb, command));
  parent.addCommand(command);
}

function commonOptions(): Option[] {
  return [
    new Option("--json", "print the result, or the error, as JSON"),
    new Option("--data-dir <dir>", "where snapshots, images and kernels are").env("FORKD_DATA_DIR"),
    new Option("--engine <name>", "what runs new parents when there is no daemon, else auto")
      .choices(engineChoices)
      .env("FORKD_ENGINE"),
    new Option("--daemon-url <url>", `the daemon's address, else ${daemonUrlDefault}`).env(
      "FORKD_URL",
    ),
    new Option("--daemon-token <token>", "the daemon's bearer token").env("FORKD_TOKEN"),
  ];
}

/** Help and version are printed by the parser, which then throws: those are no failures. */
export function isHelpOrVersion(error: unknown): error is CommanderError {
  return error instanceof CommanderError && error.exitCode === 0;
}
