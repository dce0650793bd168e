/** The Jacobian as a table; the cell in focus shows its own formula with numbers. */
import { useRef, useState } from "preact/hooks";
import { digits, short } from "../numbers";
import { Scroll } from "../scroll";
import { Shade } from "../shade";
import type { Explanation } from "./explanation";

const STEPS: Record<string, readonly [number, number]> = {
  ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
};

export function Jacobian({ steps }: { steps: Explanation }) {
  const [at, setAt] = useState<readonly [number, number]>([0, 0]);
  const table = useRef<HTMLTableElement>(null);
  const size = steps.softmax_out.length;
  const n = Math.min(at[0], size - 1), m = Math.min(at[1], size - 1);
  const largest = Math.max(...steps.softmax_jacobian.flat().map(Math.abs));
  const move = (event: KeyboardEvent): void => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    const next = [n + step[0], m + step[1]].map((i) => Math.max(0, Math.min(size - 1, i))) as [number, number];
    setAt(next);
    table.current?.querySelector<HTMLElement>(`[data-cell="${next.join()}"]`)?.focus();
  };
  return (
    <>
      <Scroll label="Jacobian">
        <table class="heat" role="grid" aria-label="Jacobian: row n, column m" ref={table} onKeyDown={move}>
          <thead>
            <tr><th scope="col"><span class="hidden">Class</span></th>{steps.softmax_out.map((_, k) => <th key={k} scope="col">m = {k}</th>)}</tr>
          </thead>
          <tbody>
            {steps.softmax_jacobian.map((line, i) => (
              <tr key={i}>
                <th scope="row">n = {i}</th>
                {line.map((value, j) => (
                  <Shade key={j} value={value} largest={largest} cell={`${i},${j}`} chosen={i === n && j === m} choose={() => setAt([i, j])} />
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <p class="readout num" aria-live="polite"><Worked steps={steps} n={n} m={m} /></p>
    </>
  );
}

function Worked({ steps, n, m }: { steps: Explanation; n: number; m: number }) {
  const s = steps.softmax_out[n]!, value = steps.softmax_jacobian[n]![m]!;
  // 1 - s of a confident row is 0 in float64; the quotient is not.
  const factor = n === m ? (s === 0 ? 1 : value / s) : -steps.softmax_out[m]!;
  return (
    <>
      ∂s<sub>{n}</sub>/∂x<sub>{m}</sub> = s<sub>{n}</sub> ({n === m ? 1 : 0} − s<sub>{m}</sub>)
      = {short(s)} × {factor < 0 ? `(${short(factor)})` : short(factor)} = <strong data-worked>{digits(value)}</strong>
    </>
  );
}
