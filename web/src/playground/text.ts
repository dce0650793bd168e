/** Reads JSON and CSV; numbers are kept as they were typed. */
import { ofNested, quoted, Unreadable, type Tensor } from "./tensor";

export interface ReadText {
  readonly tensors: readonly Tensor[];
  /** A JSON object, which can be sent as it is. */
  readonly whole: string | null;
}

const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

export function readText(text: string, name: string): ReadText {
  const start = text.trimStart().charAt(0);
  return start === "{" || start === "[" ? readJson(text, name) : { tensors: readTable(text), whole: null };
}

function readJson(text: string, name: string): ReadText {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Unreadable(`${quoted(name)} is not JSON: ${(error as Error).message}.`);
  }
  if (Array.isArray(value)) return { tensors: [ofNested("logits", value, text.trim())], whole: null };
  const members = Object.entries(value as Record<string, unknown>);
  return { tensors: members.map(([key, one]) => ofNested(key, one, JSON.stringify(one))), whole: text };
}

/** Read rows of numbers with commas, semicolons, tabs or spaces between; a first row may name columns. */
function readTable(text: string): Tensor[] {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  if (lines.length === 0) throw new Unreadable("There is nothing to read.");
  const separator = [",", ";", "\t"].find((one) => lines[0]!.includes(one)) ?? /\s+/;
  const rows = lines.map((line) => line.trim().split(separator).map((cell) => cell.trim()));
  const header = rows[0]!.every((cell) => asJson(cell) !== null) ? null : rows.shift()!;
  if (rows.length === 0) throw new Unreadable("There is a row of names and no row of numbers.");
  const width = rows[0]!.length;
  const tokens = rows.map((row, n) => {
    if (row.length !== width) throw new Unreadable(`Row ${n} has ${row.length} columns, and row 0 has ${width}.`);
    return row.map((cell) => asJson(cell) ?? refuse(cell, n));
  });
  const named = (pattern: RegExp): number => header?.findIndex((cell) => pattern.test(cell)) ?? -1;
  const label = named(/^(label|labels|target|y|class)$/i), weight = named(/^(weight|weights|row_weights)$/i);
  const apart = [label, weight];
  const rest = tokens.map((row) => `[${row.filter((_, k) => !apart.includes(k)).join(",")}]`);
  const single = width === 1 && label < 0 && weight < 0;
  const found = single ? [table("values", column(tokens, 0))] : width > apart.filter((k) => k >= 0).length ? [table("logits", `[${rest.join(",")}]`)] : [];
  if (label >= 0) found.push(table("labels", column(tokens, label)));
  if (weight >= 0) found.push(table("row_weights", column(tokens, weight)));
  return found;
}

function table(name: string, json: string): Tensor {
  return ofNested(name, JSON.parse(json), json);
}

function column(tokens: readonly (readonly string[])[], k: number): string {
  return `[${tokens.map((row) => row[k]).join(",")}]`;
}

function refuse(cell: string, row: number): never {
  throw new Unreadable(`${quoted(cell)} in row ${row} is not a number.`);
}

function asJson(cell: string): string | null {
  if (JSON_NUMBER.test(cell)) return cell;
  if (/^nan$/i.test(cell)) return '"NaN"';
  if (/^[+-]?inf(inity)?$/i.test(cell)) return cell.startsWith("-") ? '"-Infinity"' : '"Infinity"';
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(cell) ? String(Number(cell)) : null;
}
