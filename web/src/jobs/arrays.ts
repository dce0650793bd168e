/** The arrays below the roots, and which of them may be which tensor of a job. */
import { signal } from "@preact/signals";
import { call, sentence } from "../api";

/** Arrays that are offered; others can be typed. */
const OFFERED = 500;

export interface StoredArray {
  readonly url: string;
  readonly shape: readonly number[] | null;
  readonly dtype: string | null;
  readonly problem: string | null;
}

export const arrays = signal<readonly StoredArray[]>([]);

/** What to say about the list: that it is not whole, or why there is none. */
export const listSays = signal<string | null>(null);

export async function loadArrays(): Promise<void> {
  interface Page { readonly arrays: readonly StoredArray[]; readonly next: string | null; readonly truncated: boolean }
  try {
    const page = await (await call(`v1/arrays?limit=${OFFERED}`)).json() as Page;
    arrays.value = page.arrays;
    listSays.value = page.next !== null || page.truncated
      ? `The first ${page.arrays.length} arrays below the roots are offered; type the URL of another.`
      : `${page.arrays.length} arrays lie below the roots.`;
  } catch (error) {
    arrays.value = [];
    listSays.value = `The arrays below the roots cannot be listed: ${sentence(error)}`;
  }
}

const INTEGERS = /^u?int\d+$/;

const FITS: Readonly<Record<string, (dtype: string) => boolean>> = {
  labels: (dtype) => INTEGERS.test(dtype),
  target_indices: (dtype) => INTEGERS.test(dtype),
  class_mask: (dtype) => dtype === "bool" || INTEGERS.test(dtype),
};

/** Return the arrays whose type may be that of a tensor. */
export function fitting(name: string): readonly StoredArray[] {
  const fits = FITS[name] ?? ((dtype: string) => /float/.test(dtype));
  return arrays.value.filter(({ dtype }) => dtype !== null && fits(dtype));
}

/** Return what an array is, in words. */
export function told({ dtype, shape }: StoredArray): string {
  return `${dtype} [${shape?.join(", ")}]`;
}

/** Return what is known of a URL that was typed or chosen. */
export function known(url: string): string | null {
  const found = arrays.value.find((one) => one.url === url);
  return found ? found.problem ?? told(found) : null;
}
