/** The row that is explained: as typed, as an address, and as a request. */
import { signal } from "@preact/signals";
import { readHash, view, writeHash } from "../hash";
import { parseNumber, short } from "../numbers";

export const LEAST = 2;
export const MOST = 12;

/** How far probabilities may sum from 1; the service refuses more. */
export const SUM_TOLERANCE = 1e-6;

export interface Row {
  readonly logits: readonly string[];
  readonly kind: "label" | "probabilities";
  readonly label: number;
  readonly target: readonly string[];
}

export interface Preset {
  readonly name: string;
  readonly says: string;
  readonly row: Row;
}

export const PRESETS: readonly Preset[] = [
  { name: "2, 1, 0.1", says: "an ordinary row", row: labelled(["2", "1", "0.1"], 0) },
  { name: "20, 0", says: "a confident row", row: labelled(["20", "0"], 0) },
  { name: "0, \u2212800", says: "the softmax underflows", row: labelled(["0", "-800"], 1) },
  { name: "100, 98, 97", says: "float32 overflows", row: labelled(["100", "98", "97"], 0) },
];

export const row = signal<Row>(PRESETS[0]!.row);

/** What was wrong with the address; null if nothing was. */
export const addressFault = signal<string | null>(null);

function labelled(logits: string[], label: number): Row {
  return { logits, kind: "label", label, target: logits.map((_, n) => (n === label ? "1" : "0")) };
}

export function change(next: Row): void {
  row.value = next;
  addressFault.value = null;
  const target = next.kind === "label" ? { label: String(next.label) } : { target: next.target.join(",") };
  writeHash("derivation", { logits: next.logits.join(","), ...target });
}

/** Take the row that the address names, where it names one. */
export function readAddress(): void {
  const { view: named, parameters } = readHash(location.hash);
  if (named !== "derivation" || !parameters.has("logits")) return;
  const found = parseAddress(parameters);
  addressFault.value = typeof found === "string" ? found : null;
  if (typeof found !== "string") row.value = found;
}

function parseAddress(parameters: URLSearchParams): Row | string {
  const logits = (parameters.get("logits") ?? "").split(",");
  if (logits.length < LEAST || logits.length > MOST) {
    return `The address names ${logits.length} logits; this page takes ${LEAST} to ${MOST}.`;
  }
  const target = parameters.get("target")?.split(",");
  if ([...logits, ...(target ?? [])].some((text) => parseNumber(text) === null)) {
    return "The address holds something that is not a number.";
  }
  if (target) {
    if (target.length !== logits.length) return "The address names more logits than probabilities, or fewer.";
    return { ...labelled(logits, 0), kind: "probabilities", target };
  }
  const label = Number(parameters.get("label") ?? "0");
  if (!Number.isInteger(label) || label < 0 || label >= logits.length) {
    return `The address names a label outside 0 to ${logits.length - 1}.`;
  }
  return labelled(logits, label);
}

export interface RowFault {
  readonly field: "logits" | "target";
  readonly at: number;
  readonly says: string;
}

/** Return the request that a row stands for, or what is wrong with it. */
export function requestOf(given: Row): Record<string, unknown> | RowFault {
  const logits = given.logits.map(parseNumber);
  const bad = logits.indexOf(null);
  if (bad >= 0) return { field: "logits", at: bad, says: `The logit of class ${bad} is not a number.` };
  if (given.kind === "label") return { logits, label: given.label };
  const target = given.target.map(parseNumber);
  const wrong = target.findIndex((value) => value === null || value < 0);
  if (wrong >= 0) {
    return { field: "target", at: wrong, says: `The probability of class ${wrong} is not a number from 0 to 1.` };
  }
  const sum = target.reduce((total: number, value) => total + (value ?? 0), 0);
  if (Math.abs(sum - 1) > SUM_TOLERANCE) {
    return { field: "target", at: -1, says: `The probabilities sum to ${short(sum)}, not to 1.` };
  }
  return { logits, target_probabilities: target };
}

export function isFault(found: Record<string, unknown> | RowFault): found is RowFault {
  return "says" in found;
}

addEventListener("hashchange", () => { if (view.peek() === "derivation") readAddress(); });
readAddress();
