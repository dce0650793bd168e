/** What was pasted or dropped, and the role each tensor of it has. */
import { signal } from "@preact/signals";
import { call } from "../api";
import { megabytes } from "../numbers";
import { readNpy } from "./npy";
import { readSafetensors } from "./safetensors";
import { quoted, Unreadable, type Tensor } from "./tensor";
import { readText } from "./text";

export const ROLES = [
  "logits", "labels", "target_probabilities", "target_indices", "target_log_probabilities",
  "class_weights", "row_weights", "class_mask",
] as const;
export type Role = (typeof ROLES)[number];

export interface Given {
  readonly tensor: Tensor;
  readonly role: Role | null;
  readonly from: string;
}

export const EXAMPLE = '{"logits": [[2, 1, 0.1], [20, 0, 0]], "labels": [0, 0]}';

export const text = signal(EXAMPLE);
export const files = signal<readonly Given[]>([]);
export const fault = signal<string | null>(null);

const ALIASES = new Map<string, Role>([["label", "labels"], ["targets", "labels"], ["target", "labels"], ["y", "labels"], ["mask", "class_mask"], ["weights", "row_weights"], ["probabilities", "target_probabilities"]]);

/** Return what the text holds; `whole` is a JSON object that can be sent as it is. */
export function typed(source: string): { given: readonly Given[]; whole: string | null } {
  if (source.trim() === "") return { given: [], whole: null };
  const { tensors, whole } = readText(source, "The text");
  return { given: assign(tensors, "text"), whole };
}

/** Read a file, after its size is known to be one that the service would take. */
export async function readFile(file: File): Promise<void> {
  try {
    const limit = await largestBody();
    if (file.size > limit) {
      throw new Unreadable(`${quoted(file.name)} has ${megabytes(file.size)}; this service takes at most ${megabytes(limit)}. Evaluate it as a job instead.`);
    }
    const bytes = new Uint8Array(await file.arrayBuffer());
    const found = assign(tensorsOf(bytes, file.name), file.name);
    const taken = new Set(found.map(({ role }) => role));
    files.value = [...files.value.map((one) => (taken.has(one.role) ? { ...one, role: null } : one)), ...found];
    fault.value = null;
  } catch (error) {
    fault.value = error instanceof Unreadable && !error.message.includes(quoted(file.name))
      ? `${quoted(file.name)}: ${error.message}` : (error as Error).message;
  }
}

function tensorsOf(bytes: Uint8Array<ArrayBuffer>, name: string): readonly Tensor[] {
  const starts = (...codes: number[]): boolean => codes.every((code, n) => bytes[n] === code);
  if (starts(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59)) return [readNpy(bytes, name.replace(/\.npy$/i, ""))];
  if (starts(0x50, 0x4b)) throw new Unreadable("This is a zip archive, as .npz and .pt files are; save one .npy or safetensors file.");
  if (starts(0x80) && (bytes[1] ?? 0) <= 5 && bytes[8] !== 0x7b) throw new Unreadable("This is a pickle, which could run code and is not read; save .npy or safetensors.");
  if (bytes.length === 0) throw new Unreadable("The file is empty.");
  let decoded: string;
  try {
    if (bytes[8] === 0x7b && bytes.subarray(4, 8).every((byte) => byte === 0)) return readSafetensors(bytes).tensors;
    decoded = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof Unreadable) throw error;
    throw new Unreadable("The file is neither text nor .npy nor safetensors.");
  }
  return readText(decoded, name).tensors;
}

/** Give each tensor the role that its name, or else its shape, speaks for; none twice. */
function assign(tensors: readonly Tensor[], from: string): Given[] {
  const taken = new Set<Role>();
  return tensors.map((tensor) => {
    const role = byName(tensor.name) ?? byShape(tensor);
    if (role === null || taken.has(role)) return { tensor, role: null, from };
    taken.add(role);
    return { tensor, role, from };
  });
}

function byName(name: string): Role | null {
  const plain = name.toLowerCase();
  return ROLES.find((role) => role === plain) ?? ALIASES.get(plain) ?? null;
}

function byShape(tensor: Tensor): Role | null {
  if (tensor.dtype === "BOOL") return "class_mask";
  if (tensor.shape.length === 1 && tensor.integers) return "labels";
  return tensor.shape.length >= 2 ? "logits" : null;
}

let limit: number | null = null;

async function largestBody(): Promise<number> {
  if (limit === null) {
    const info = await (await call("v1/info")).json() as { limits: { binary_bytes: number } };
    limit = info.limits.binary_bytes;
  }
  return limit;
}
