/** Numbers as text: the shortest digits that give back the same float, and which of them are wrong. */

/** A number of the service's JSON, in which those that are not finite are words. */
export type Wire = number | "NaN" | "Infinity" | "-Infinity";

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** Return the finite number that a person typed, null if it is none. */
export function parseNumber(text: string): number | null {
  const plain = text.trim().replace(/^\u2212/, "-");
  const value = NUMBER.test(plain) ? Number(plain) : NaN;
  return Number.isFinite(value) ? value : null;
}

export function fromWire(value: Wire): number {
  return Number(value);
}

/** Return every digit, with a minus sign as wide as a plus. */
export function digits(value: number): string {
  return signed(String(value === 0 ? 0 : value));
}

/** Return about four digits. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return digits(value);
  return signed(String(Number(value.toPrecision(4))));
}

/** Return two or three digits, for cells of a wide table. */
export function compact(value: number): string {
  if (value === 0 || Math.abs(value) >= 1e-3) return signed(String(Number(value.toPrecision(3))));
  return signed(value.toExponential(1));
}

/** Return the shortest digits that give back the same float32. */
export function digits32(value: number): string {
  if (!Number.isFinite(value)) return digits(value);
  for (let precision = 1; precision < 9; precision++) {
    const text = value.toPrecision(precision);
    if (Math.fround(Number(text)) === value) return digits(Number(text));
  }
  return digits(Number(value.toPrecision(9)));
}

function signed(text: string): string {
  return text.replaceAll("-", "\u2212").replace("Infinity", "\u221e");
}

export interface Compared {
  /** The leading digits that are right, and the rest. */
  readonly right: string;
  readonly wrong: string;
  readonly verdict: string;
}

/** Compare a number with the right one, which `scale` may exceed where a difference was formed. */
export function compare(value: number, right: number, epsilon: number, scale: number): Compared {
  const text = digits(value);
  if (Number.isNaN(value)) return { right: "", wrong: "NaN", verdict: "not a number" };
  if (!Number.isFinite(value)) return { right: "", wrong: text, verdict: "infinite" };
  const error = Math.abs(value - right);
  if (error <= 4 * epsilon * Math.max(Math.abs(right), scale)) {
    return { right: text, wrong: "", verdict: "right" };
  }
  const count = right === 0 ? 0 : Math.max(0, Math.floor(-Math.log10(error / Math.abs(right))));
  const at = count === 0 ? 0 : firstDifference(text, digits(right));
  const verdict = count === 0 ? "no digit right" : `${count} ${count === 1 ? "digit" : "digits"} right`;
  return { right: text.slice(0, at), wrong: text.slice(at), verdict };
}

function firstDifference(text: string, right: string): number {
  let at = 0;
  while (at < text.length && text[at] === right[at]) at++;
  return at;
}

/** Return a number of bytes in the largest unit that suits it. */
export function megabytes(bytes: number): string {
  return bytes < 1e6 ? `${bytes} bytes` : bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
