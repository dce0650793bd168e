/** Asks the service for the steps of the row, and keeps the last ones. */
import { effect, signal } from "@preact/signals";
import { key, postJson, reachable, sentence } from "../api";
import type { Wire } from "../numbers";
import { isFault, requestOf, row } from "./row";

export interface NaiveForm {
  readonly softmax_out: readonly Wire[];
  readonly loss: Wire;
  readonly gradient: readonly Wire[];
}

export interface Explanation {
  readonly softmax_out: readonly number[];
  readonly softmax_jacobian: readonly (readonly number[])[];
  readonly target: readonly number[];
  readonly loss: number;
  readonly loss_by_softmax_out: readonly number[] | null;
  readonly chain_rule_product: readonly number[] | null;
  readonly fused_gradient: readonly number[];
  readonly largest_difference: number | null;
  readonly notes: readonly string[];
  readonly stable: { readonly m: number; readonly e: readonly number[]; readonly S: number; readonly log1p: number };
  readonly naive: { readonly float32: NaiveForm; readonly float64: NaiveForm };
}

/** The steps, with the logits that they belong to. */
export interface Explained {
  readonly logits: readonly number[];
  readonly steps: Explanation;
}

export const explained = signal<Explained | null>(null);

/** Why the steps shown are not those of the row; null if they are. */
export const fault = signal<string | null>(null);

let running: AbortController | null = null;

async function explain(request: Record<string, unknown>): Promise<void> {
  running?.abort();
  const controller = running = new AbortController();
  try {
    const steps = await postJson("v1/explain", request, controller.signal) as Explanation;
    explained.value = { logits: request.logits as number[], steps };
    fault.value = null;
  } catch (error) {
    if (!controller.signal.aborted) fault.value = sentence(error);
  }
}

/** Explain the row now and whenever it, the key or the service changes; return how to stop. */
export function follow(): () => void {
  return effect(() => {
    const request = requestOf(row.value);
    void key.value;
    if (isFault(request)) {
      running?.abort();
      fault.value = request.says;
    } else if (reachable.value) {
      void explain(request);
    }
  });
}
