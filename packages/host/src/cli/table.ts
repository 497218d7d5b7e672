/** A column of a plain-text table. */
export interface Column<Row> {
  readonly title: string;
  readonly align?: "left" | "right";
  readonly cell: (row: Row) => string;
}

const gap = "  ";

/** Control characters would let a name from outside move the terminal's cursor. */
export function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, "?");
}

/** Lines of an aligned table, header first; no line ends in spaces. */
export function renderTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string[] {
  const header = columns.map((column) => column.title);
  const body = rows.map((row) => columns.map((column) => plain(column.cell(row))));
  const lines = [header, ...body];
  const widths = columns.map((_, index) =>
    lines.reduce((width, cells) => Math.max(width, (cells[index] ?? "").length), 0),
  );
  const pad = (cell: string, index: number): string =>
    columns[index]?.align === "right"
      ? cell.padStart(widths[index] ?? 0)
      : cell.padEnd(widths[index] ?? 0);
  return lines.map((cells) => cells.map(pad).join(gap).trimEnd());
}
