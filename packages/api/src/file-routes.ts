import {
  fileInfoSchema,
  fileListSchema,
  fileQuerySchema,
  fileRemoveQuerySchema,
  fileStatQuerySchema,
  fileWriteQuerySchema,
  makeDirectorySchema,
  renameFileSchema,
} from "./file.ts";
import type { Route } from "./route.ts";
import { fileChangeErrors, fileErrors } from "./route-errors.ts";

/** The rows of the route table for the files of a sandbox. */
export const fileRoutes = {
  readFile: {
    method: "GET",
    path: "/v1/sandboxes/{id}/files",
    summary: "The bytes of a file in the guest; a Range header asks for a part",
    request: null,
    query: fileQuerySchema,
    success: { status: 200, body: "bytes", mayBePartial: true },
    errors: [...fileErrors, "is_a_directory", "not_a_file", "range_not_satisfiable"],
  },
  writeFile: {
    method: "PUT",
    path: "/v1/sandboxes/{id}/files",
    summary: "Write a file in the guest: whole or not at all",
    request: "bytes",
    query: fileWriteQuerySchema,
    success: { status: 200, body: fileInfoSchema },
    errors: [...fileChangeErrors, "not_a_file", "upload_incomplete", "payload_too_large"],
  },
  removeFile: {
    method: "DELETE",
    path: "/v1/sandboxes/{id}/files",
    summary: "Remove a file, or a directory, of the guest",
    request: null,
    query: fileRemoveQuerySchema,
    success: { status: 204, body: null },
    errors: [...fileErrors, "directory_not_empty"],
  },
  statFile: {
    method: "GET",
    path: "/v1/sandboxes/{id}/files/stat",
    summary: "What a path in the guest is",
    request: null,
    query: fileStatQuerySchema,
    success: { status: 200, body: fileInfoSchema },
    errors: fileErrors,
  },
  listFiles: {
    method: "GET",
    path: "/v1/sandboxes/{id}/files/list",
    summary: "The entries of a directory in the guest",
    request: null,
    query: fileQuerySchema,
    success: { status: 200, body: fileListSchema },
    errors: fileErrors,
  },
  makeDirectory: {
    method: "POST",
    path: "/v1/sandboxes/{id}/files/mkdir",
    summary: "Make a directory in the guest",
    request: makeDirectorySchema,
    success: { status: 204, body: null },
    errors: fileChangeErrors,
  },
  renameFile: {
    method: "POST",
    path: "/v1/sandboxes/{id}/files/rename",
    summary: "Give a file or a directory of the guest another path",
    request: renameFileSchema,
    success: { status: 204, body: null },
    errors: [...fileChangeErrors, "directory_not_empty"],
  },
} as const satisfies Record<string, Route>;
