/** Sends the batch and keeps what came of it. */
import { signal } from "@preact/signals";
import { call, Refusal, sentence, type Problem } from "../api";
import { query } from "./options";
import { readSafetensors, writeSafetensors } from "./safetensors";
import type { Given, Role } from "./sources";
import { ofNested, type Tensor } from "./tensor";

export const PATH = "v1/cross_entropy";

/** A request that was really sent; `json` is null if its body is safetensors. */
export interface Sent {
  readonly query: string;
  readonly json: string | null;
  readonly body: Blob;
  readonly milliseconds: number;
}

export interface Outcome {
  readonly sent: Sent;
  readonly logits: Tensor;
  readonly inputs: readonly Given[];
  readonly outputs: ReadonlyMap<string, Tensor>;
  readonly sums: Readonly<Record<string, string>>;
  readonly problem: Problem | null;
}

export const outcome = signal<Outcome | null>(null);
export const fault = signal<string | null>(null);
export const running = signal(false);

let controller: AbortController | null = null;

/** Evaluate what has a role; a JSON object whose names are the roles goes as it was typed. */
export async function run(given: readonly Given[], whole: string | null): Promise<void> {
  const named = given.filter((one): one is Given & { role: Role } => one.role !== null);
  const logits = named.find(({ role }) => role === "logits")?.tensor;
  if (logits === undefined) {
    fault.value = "No tensor has the role logits: give one that role.";
    return;
  }
  controller?.abort();
  const own = controller = new AbortController();
  running.value = true;
  fault.value = null;
  const json = named.every(({ tensor }) => tensor.json !== null) ? jsonOf(named, given, whole) : null;
  const type = json === null ? "application/vnd.safetensors" : "application/json";
  const body = new Blob([json ?? writeSafetensors(named.map(({ role, tensor }) => [role, tensor] as const))], { type });
  const options = query(), began = performance.now();
  const sent = (): Sent => ({ query: options, json, body, milliseconds: performance.now() - began });
  try {
    const response = await call(PATH + options, { method: "POST", headers: { "content-type": type }, body, signal: own.signal });
    const [outputs, sums] = json === null ? binaryAnswer(await response.arrayBuffer()) : jsonAnswer(await response.json() as Record<string, unknown>);
    outcome.value = { sent: sent(), logits, inputs: named, outputs, sums, problem: null };
  } catch (error) {
    if (own.signal.aborted) return;
    if (error instanceof Refusal) {
      outcome.value = { sent: sent(), logits, inputs: named, outputs: new Map(), sums: {}, problem: error.problem };
    }
    fault.value = sentence(error);
  } finally {
    if (controller === own) running.value = false;
  }
}

function jsonOf(named: readonly (Given & { role: Role })[], given: readonly Given[], whole: string | null): string {
  const asTyped = whole !== null && named.length === given.length && named.every(({ role, tensor }) => role === tensor.name);
  return asTyped ? whole : `{${named.map(({ role, tensor }) => `"${role}": ${tensor.json}`).join(", ")}}`;
}

const SUMS = ["loss_sum", "weight_sum", "count"];

function jsonAnswer(answer: Record<string, unknown>): [Map<string, Tensor>, Record<string, string>] {
  const outputs = new Map<string, Tensor>(), sums: Record<string, string> = {};
  for (const [name, value] of Object.entries(answer)) {
    if (SUMS.includes(name) || !Array.isArray(value)) sums[name] = String(value);
    else outputs.set(name, ofNested(name, value, ""));
  }
  return [outputs, sums];
}

function binaryAnswer(buffer: ArrayBuffer): [Map<string, Tensor>, Record<string, string>] {
  const { tensors, metadata } = readSafetensors(new Uint8Array(buffer));
  const outputs = new Map<string, Tensor>(), sums: Record<string, string> = {};
  for (const tensor of tensors) {
    if (tensor.shape.length === 0) sums[tensor.name] = String(tensor.at(0));
    else outputs.set(tensor.name, tensor);
  }
  return [outputs, { ...sums, ...metadata }];
}
