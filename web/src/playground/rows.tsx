/** Rows of the batch and of its outputs, a page at a time. */
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { digits, digits32 } from "../numbers";
import { Scroll } from "../scroll";
import type { Outcome } from "./run";
import { count, type Tensor } from "./tensor";

const PAGE = 12;
const COLUMNS = 6;

/** The row looked at. */
export const focusedRow = signal(0);

export function rowsOf(outcome: Outcome): number {
  return count(outcome.logits.shape.slice(0, -1));
}

/** Return an element with all digits of its dtype. */
export function element(tensor: Tensor, index: number): string {
  const value = tensor.at(index);
  return tensor.dtype === "F32" ? digits32(value) : digits(value);
}

export function Rows({ outcome }: { outcome: Outcome }) {
  const rows = rowsOf(outcome), classes = outcome.logits.shape.at(-1) ?? 0;
  const at = Math.max(0, Math.min(rows - 1, focusedRow.value));
  const first = Math.floor(at / PAGE) * PAGE;
  const perRow = [...outcome.outputs].filter(([, tensor]) => count(tensor.shape) === rows && tensor.shape.length < outcome.logits.shape.length);
  const labels = outcome.inputs.find(({ role }) => role === "labels")?.tensor;
  const table = useRef<HTMLTableElement>(null);
  useEffect(() => { table.current?.querySelector("[data-focused]")?.scrollIntoView({ block: "nearest" }); }, [at]);
  const turn = (to: number): void => { focusedRow.value = Math.max(0, Math.min(rows - 1, to)); };
  return (
    <>
      <Scroll label="Rows of the batch">
        <table class="steps-table rows" ref={table}>
          <caption class="hidden">Rows of the batch and what was computed of each</caption>
          <thead>
            <tr>
              <th scope="col">row</th>{perRow.map(([name]) => <th key={name} scope="col">{name}</th>)}
              {labels && <th scope="col">label</th>}<th scope="col" class="left">logits</th>
            </tr>
          </thead>
          <tbody>
            {Array.from({ length: Math.max(0, Math.min(PAGE, rows - first)) }, (_, k) => first + k).map((n) => (
              <tr key={n} data-row={n} data-focused={n === at ? "" : undefined} aria-current={n === at}>
                <th scope="row">{n}</th>
                {perRow.map(([name, tensor]) => <td key={name} class="num" data-output={name}>{element(tensor, n)}</td>)}
                {labels && <td class="num">{n < count(labels.shape) ? element(labels, n) : ""}</td>}
                <td class="num left">{logitsOf(outcome.logits, n, classes)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {rows > PAGE && (
        <div class="actions">
          <button type="button" disabled={first === 0} onClick={() => turn(first - PAGE)}>Previous</button>
          <button type="button" disabled={first + PAGE >= rows} onClick={() => turn(first + PAGE)}>Next</button>
          <label class="goto">Row <input class="num" inputMode="numeric" value={String(at)} onChange={(event) => turn(Math.trunc(Number(event.currentTarget.value)) || 0)} /></label>
          <span class="said">of {rows}</span>
        </div>
      )}
    </>
  );
}

function logitsOf(logits: Tensor, row: number, classes: number): string {
  const shown = Array.from({ length: Math.min(COLUMNS, classes) }, (_, k) => element(logits, row * classes + k));
  return shown.join("  ") + (classes > COLUMNS ? "  …" : "");
}
