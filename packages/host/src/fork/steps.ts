/**
 * The steps of the journal: after each of them, what is on disk explains what exists. A test ends
 * the daemon at every one.
 */
export const journalSteps = [
  /** Spawn: the work directory has its name, with its owner and its intent in it. */
  "start_recorded",
  /** Spawn: a resource is written down and not yet taken; then it is taken. */
  "resource_recorded",
  "resource_taken",
  /** Spawn: the VMM runs, its guest is paused. */
  "vmm_started",
  /** Spawn: the guest has proven itself, and nobody has written that down. */
  "identity_proven",
  /** Spawn: from here on a later daemon adopts it. */
  "running_recorded",
  /** End: from here on it ends, whoever has to finish that. */
  "end_intended",
  "vmm_stopped",
  "resources_released",
  /** End: it is in the history, and its work directory is still there. */
  "end_recorded",
  /** End: the work directory has lost its name. */
  "work_dir_doomed",
  "work_dir_removed",
  /** Adoption: the token of the next attach is on disk; the agent has it; the owner has changed. */
  "attach_recorded",
  "attached",
  "adopted",
  /** Branch: the directory that will be the snapshot; what it captured; then its name. */
  "branch_staged",
  "branch_captured",
  "branch_published",
  /** Bake: the directory that will be the snapshot; then the parent's life; then its name. */
  "bake_staged",
  "bake_booted",
  "bake_warm",
  "bake_frozen",
  "bake_published",
] as const;

export type JournalStep = (typeof journalSteps)[number];

/** Told of every step, before the next one. */
export type OnStep = (step: JournalStep) => void;
