/** The safetensors layout: a length, a JSON header, then tensors. */
import { count, ofBytes, quoted, SIZES, Unreadable, type Dtype, type Tensor } from "./tensor";

interface Entry { dtype: string; shape: number[]; data_offsets: [number, number] }

export interface ReadSafetensors {
  readonly tensors: readonly Tensor[];
  readonly metadata: Readonly<Record<string, string>>;
}

export function readSafetensors(bytes: Uint8Array<ArrayBuffer>): ReadSafetensors {
  const header = headerOf(bytes);
  if (header === null) throw new Unreadable("The file is neither text nor .npy nor safetensors.");
  const { end, members } = header;
  const tensors = Object.entries(members).filter(([name]) => name !== "__metadata__").map(([name, entry]) => {
    if (!isEntry(entry)) throw new Unreadable(`The header of the safetensors file gives the tensor ${quoted(name)} no dtype, shape and data_offsets of whole numbers.`);
    const { dtype, shape, data_offsets: [from, to] } = entry;
    if (!Object.hasOwn(SIZES, dtype)) throw new Unreadable(`The tensor ${quoted(name)} has the dtype ${dtype}, which this page does not read.`);
    if (to - from !== count(shape) * SIZES[dtype as Dtype]) throw new Unreadable(`The header gives the tensor ${quoted(name)} ${to - from} bytes, which its shape and dtype do not need.`);
    if (end + to > bytes.length) throw new Unreadable(`The file ends inside the tensor ${quoted(name)}: it was cut off.`);
    return ofBytes(name, dtype as Dtype, shape, bytes.slice(end + from, end + to));
  });
  return { tensors, metadata: (members.__metadata__ ?? {}) as Record<string, string> };
}

function isEntry(entry: unknown): entry is Entry {
  const { dtype, shape, data_offsets } = (entry ?? {}) as Partial<Record<keyof Entry, unknown>>;
  return typeof dtype === "string" && areSizes(shape) && areSizes(data_offsets) && data_offsets.length === 2;
}

function areSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && one >= 0);
}

function headerOf(bytes: Uint8Array<ArrayBuffer>): { end: number; members: Record<string, unknown> } | null {
  if (bytes.length < 10 || bytes[8] !== 0x7b) return null;
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > bytes.length - 8) throw new Unreadable("The safetensors file ends inside its header: it was cut off.");
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + length));
    return { end: 8 + length, members: JSON.parse(text) as Record<string, unknown> };
  } catch {
    throw new Unreadable("The header of the safetensors file is not JSON.");
  }
}

/** Return a body that holds the tensors under the names given; floats of text become float32. */
export function writeSafetensors(named: readonly (readonly [string, Tensor])[]): Uint8Array<ArrayBuffer> {
  const parts = named.map(([name, tensor]) => [name, tensor.dtype === null ? fromText(name, tensor) : tensor] as const);
  let offset = 0;
  const header: Record<string, Entry> = {};
  for (const [name, { dtype, shape, bytes }] of parts) {
    header[name] = { dtype: dtype!, shape: [...shape], data_offsets: [offset, offset += bytes.length] };
  }
  const text = JSON.stringify(header);
  const head = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  const body = new Uint8Array(8 + head.length + offset);
  new DataView(body.buffer).setBigUint64(0, BigInt(head.length), true);
  body.set(head, 8);
  let at = 8 + head.length;
  for (const [, { bytes }] of parts) {
    body.set(bytes, at);
    at += bytes.length;
  }
  return body;
}

function fromText(name: string, tensor: Tensor): Tensor {
  const length = count(tensor.shape);
  const values = Array.from({ length }, (_, i) => tensor.at(i));
  if (name === "class_mask") return ofBytes(name, "BOOL", tensor.shape, Uint8Array.from(values));
  const array = INTEGERS.has(name) ? BigInt64Array.from(values.map(BigInt)) : Float32Array.from(values);
  return ofBytes(name, INTEGERS.has(name) ? "I64" : "F32", tensor.shape, new Uint8Array(array.buffer));
}

const INTEGERS = new Set(["labels", "target_indices"]);
