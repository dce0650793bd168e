/** Reads NumPy's .npy files. */
import { count, ofBytes, SIZES, Unreadable, type Dtype, type Tensor } from "./tensor";

const DTYPES = new Map<string, Dtype>(Object.entries({
  b1: "BOOL", u1: "U8", i1: "I8", u2: "U16", i2: "I16", u4: "U32", i4: "I32", u8: "U64", i8: "I64", f2: "F16", f4: "F32", f8: "F64",
}));

export function readNpy(bytes: Uint8Array<ArrayBuffer>, name: string): Tensor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = (bytes[6] ?? 0) >= 2, start = wide ? 12 : 10;
  if (bytes.length < start) throw new Unreadable("The .npy file ends inside its header.");
  const end = start + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  if (bytes.length < end) throw new Unreadable("The .npy file ends inside its header.");
  const header = new TextDecoder("latin1").decode(bytes.subarray(start, end));
  const descr = /'descr':\s*'([^']*)'/.exec(header)?.[1];
  const shape = /'shape':\s*\(([\d,\s]*)\)/.exec(header)?.[1]?.split(",").filter((one) => one.trim() !== "").map(Number);
  if (descr === undefined || shape === undefined) throw new Unreadable("The .npy file holds fields or has a header that is not NumPy's; save one plain array.");
  if (/O/.test(descr)) throw new Unreadable("The .npy file holds Python objects (a pickle); save numbers instead.");
  const dtype = DTYPES.get(descr.slice(1));
  if (dtype === undefined) throw new Unreadable(`The .npy file has the dtype ${descr}; this page reads booleans, integers and floats of 16, 32 and 64 bits.`);
  const size = SIZES[dtype], length = count(shape) * size;
  if (bytes.length - end !== length) throw new Unreadable(`The .npy file announces ${length} bytes of data and holds ${bytes.length - end}.`);
  let data = bytes.slice(end);
  if (descr.startsWith(">")) data = swapped(data, size);
  if (/'fortran_order':\s*True/.test(header)) data = rowByRow(data, shape, size);
  return ofBytes(name, dtype, shape, data);
}

function swapped(data: Uint8Array<ArrayBuffer>, size: number): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i++) result[i] = data[i - (i % size) + size - 1 - (i % size)]!;
  return result;
}

function rowByRow(data: Uint8Array<ArrayBuffer>, shape: readonly number[], size: number): Uint8Array<ArrayBuffer> {
  if (shape.length < 2) return data;
  if (shape.length > 2) throw new Unreadable("The .npy file is in Fortran order with more than two dimensions; save numpy.ascontiguousarray of it.");
  const [rows, columns] = shape as [number, number];
  const result = new Uint8Array(data.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const from = (j * rows + i) * size;
      result.set(data.subarray(from, from + size), (i * columns + j) * size);
    }
  }
  return result;
}
