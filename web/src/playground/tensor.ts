/** Tensors as files hold them: bytes with a dtype and a shape, or numbers as they were typed. */

export type Dtype = "BOOL" | "U8" | "I8" | "U16" | "I16" | "U32" | "I32" | "U64" | "I64" | "F16" | "BF16" | "F32" | "F64";

export const SIZES: Record<Dtype, number> = {
  BOOL: 1, U8: 1, I8: 1, U16: 2, I16: 2, U32: 4, I32: 4, U64: 8, I64: 8, F16: 2, BF16: 2, F32: 4, F64: 8,
};

export interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** What a binary file says; null for text, whose numbers have no dtype yet. */
  readonly dtype: Dtype | null;
  /** Little-endian, row by row; empty for text. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The JSON of a tensor that was text, its numbers as they were typed. */
  readonly json: string | null;
  readonly integers: boolean;
  at(index: number): number;
}

/** A sentence that says why a file or a text is not read. */
export class Unreadable extends Error {}

export function count(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function ofBytes(name: string, dtype: Dtype, shape: readonly number[], bytes: Uint8Array<ArrayBuffer>): Tensor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const read = READERS[dtype], size = SIZES[dtype];
  return { name, shape, dtype, bytes, json: null, integers: /^[UI]/.test(dtype), at: (index) => read(view, index * size) };
}

const READERS: Record<Dtype, (view: DataView, at: number) => number> = {
  BOOL: (view, at) => view.getUint8(at),
  U8: (view, at) => view.getUint8(at),
  I8: (view, at) => view.getInt8(at),
  U16: (view, at) => view.getUint16(at, true),
  I16: (view, at) => view.getInt16(at, true),
  U32: (view, at) => view.getUint32(at, true),
  I32: (view, at) => view.getInt32(at, true),
  U64: (view, at) => Number(view.getBigUint64(at, true)),
  I64: (view, at) => Number(view.getBigInt64(at, true)),
  F16: (view, at) => half(view.getUint16(at, true)),
  BF16: (view, at) => bfloat(view.getUint16(at, true)),
  F32: (view, at) => view.getFloat32(at, true),
  F64: (view, at) => view.getFloat64(at, true),
};

function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}

const WORD = new DataView(new ArrayBuffer(4));

function bfloat(bits: number): number {
  WORD.setUint32(0, bits << 16);
  return WORD.getFloat32(0);
}

const JSON_WORDS: Record<string, number> = { NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity };

/** Most dimensions of a tensor, as in the service. */
const DEEPEST = 63;

/** Return the tensor that nested arrays of numbers are; `json` is their text. */
export function ofNested(name: string, value: unknown, json: string): Tensor {
  const shape: number[] = [];
  for (let part = value; Array.isArray(part); part = part[0]) shape.push(part.length);
  if (shape.length > DEEPEST) throw new Unreadable(`${quoted(name)} is nested ${shape.length} deep; an array has at most ${DEEPEST} dimensions.`);
  const values = new Float64Array(count(shape));
  let filled = 0, integers = true;
  const fill = (part: unknown, depth: number): void => {
    if (Array.isArray(part)) {
      if (part.length !== shape[depth]) throw new Unreadable(`${quoted(name)} holds arrays of unequal lengths: ${shape[depth] ?? "a number"} and ${part.length}.`);
      for (const one of part) fill(one, depth + 1);
      return;
    }
    const number = typeof part === "number" || typeof part === "boolean" ? Number(part) : JSON_WORDS[String(part)];
    if (depth !== shape.length || number === undefined) throw new Unreadable(`${quoted(name)} holds ${quoted(String(part))} where a number should be.`);
    integers &&= Number.isInteger(number);
    values[filled++] = number;
  };
  fill(value, 0);
  return { name, shape, dtype: null, bytes: new Uint8Array(0), json, integers, at: (index) => values[index]! };
}

/** Return text of a file, short and in quotes. */
export function quoted(text: string): string {
  return `“${text.length > 40 ? `${text.slice(0, 40)}…` : text}”`;
}
