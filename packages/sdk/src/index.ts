export type {
  BranchMode,
  ErrorCode,
  EvalResult,
  EventType,
  ExecEnd,
  ExecInfo,
  ExecResult,
  FileInfo,
  FileList,
  ForkdEvent,
  Pong as PingResult,
  Problem,
  SandboxInfo,
  SnapshotInfo,
  SnapshotInfoDetail,
} from "@forkd/api";
export { ForkdError } from "@forkd/api";
export type { BranchOptions } from "./branch.ts";
export type {
  CallControl,
  CallOptions,
  ClientOptions,
  OpenStream,
  RouteMethods,
  StreamOptions,
} from "./client.ts";
export { Client } from "./client.ts";
export type {
  ConnectOptions,
  ControllerOptions,
  ExecOptions,
} from "./controller.ts";
export { Controller } from "./controller.ts";
export { ControllerError, GuestEvalError } from "./errors.ts";
export type { EvalOptions, EvalProgress, OnEvalOutput, StreamEvalOptions } from "./evals.ts";
export type { EventOptions } from "./events.ts";
export { events } from "./events.ts";
export type {
  FileData,
  FileOptions,
  GuestPath,
  ReadFileOptions,
  WriteFileOptions,
} from "./files.ts";
export { FileDownload, SandboxFiles, wholeFileBytesMax } from "./files.ts";
export type { DeleteOptions } from "./handles.ts";
export { Sandbox, Sandboxes, Snapshot } from "./handles.ts";
export { type FollowLogOptions, followLog } from "./logs.ts";
export type { Output } from "./output.ts";
export type { GuestProcess } from "./process.ts";
export type { Socket, SocketMaker } from "./socket-maker.ts";
export type { ForkOptions, SpawnOptions } from "./spawn.ts";
export type { AttachOptions, ProcessOptions } from "./start-process.ts";
