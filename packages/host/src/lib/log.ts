/** Structured log: a sentence for people and fields for programs. */
export interface Logger {
  info(message: string, fields?: object): void;
  warn(message: string, fields?: object): void;
  error(message: string, fields?: object): void;
  child(fields: object): Logger;
}

const nothing = (): void => undefined;

/** Drops everything; for the CLI, whose progress is its log, and for tests. */
export const silentLogger: Logger = {
  info: nothing,
  warn: nothing,
  error: nothing,
  child: () => silentLogger,
};
