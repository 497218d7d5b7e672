/** Plain columns, aligned: text to the left, numbers to the right. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const all = [header, ...rows];
  const widths = header.map((_, column) =>
    Math.max(...all.map((row) => (row[column] ?? "").length)),
  );
  const isNumber = (cell: string): boolean => /^[-\d.,]+( ?[a-zA-Z%]+)?$/.test(cell);
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return isNumber(cell) ? cell.padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd();
  return all.map(line).join("\n");
}

/** A number of milliseconds for people; a dash for none. */
export function ms(value: number | null | undefined): string {
  if (value === null || value === undefined) return "-";
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0);
}

export const mib = (bytes: number | null | undefined): string =>
  bytes === null || bytes === undefined ? "-" : (bytes / 1024 / 1024).toFixed(1);

export const times = (value: number | null): string => (value === null ? "-" : value.toFixed(2));
