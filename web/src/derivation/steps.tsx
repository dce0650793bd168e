/** The steps from the row to the gradient, each with its formula and its numbers. */
import type { ComponentChildren } from "preact";
import { Bar } from "../shade";
import { Formula, Partial, Sub, Sum } from "../math";
import { digits, short } from "../numbers";
import { Scroll } from "../scroll";
import type { Explained } from "./explanation";
import { Jacobian } from "./jacobian";

/** Terms of a sum that are written out. */
const TERMS = 3;

export function Step({ n, title, children }: { n: number; title: string; children: ComponentChildren }) {
  return (
    <section class="step" aria-labelledby={`step-${n}`}>
      <h2 id={`step-${n}`}><span class="ordinal" aria-hidden="true">{n}</span>{title}</h2>
      {children}
    </section>
  );
}

export function SoftmaxStep({ shown: { logits, steps } }: { shown: Explained }) {
  const { m, e, S } = steps.stable;
  return (
    <Step n={1} title="Softmax">
      <p>Exponentials, divided by their sum. The largest logit, <i>m</i>, is taken out first, so that nothing overflows;
        the sum leaves out one maximum, so that <i>S</i> keeps every digit of a confident row.</p>
      <Formula says="s n equals e to the x n over the sum over k of e to the x k, equals e n over 1 plus S">
        <Sub of="s" at="n" /><mo>=</mo>
        <mfrac><msup><mi>e</mi><msub><mi>x</mi><mi>n</mi></msub></msup><Sum over="k"><msup><mi>e</mi><msub><mi>x</mi><mi>k</mi></msub></msup></Sum></mfrac>
        <mo>=</mo><mfrac><Sub of="e" at="n" /><mrow><mn>1</mn><mo>+</mo><mi>S</mi></mrow></mfrac>
        <mo>,</mo><mspace width="1em" /><Sub of="e" at="n" /><mo>=</mo>
        <msup><mi>e</mi><mrow><msub><mi>x</mi><mi>n</mi></msub><mo>−</mo><mi>m</mi></mrow></msup>
      </Formula>
      <Scroll label="Softmax of each class">
        <table class="steps-table">
          <thead><tr><th scope="col">n</th><th scope="col">x</th><th scope="col">e</th><th scope="col">s</th><th scope="col" class="wide"><span class="hidden">bar of s</span></th></tr></thead>
          <tbody>
            {steps.softmax_out.map((s, n) => (
              <tr key={n}>
                <th scope="row">{n}</th><td class="num">{digits(logits[n]!)}</td><td class="num" title={digits(e[n]!)} data-exponential={String(e[n]!)}>{short(e[n]!)}</td>
                <td class="num" data-softmax={n}>{digits(s)}</td><td><Bar value={s} largest={1} /></td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <p class="readout num">m = {digits(m)}, S = <span data-sum>{digits(S)}</span></p>
    </Step>
  );
}

export function JacobianStep({ shown: { steps } }: { shown: Explained }) {
  return (
    <Step n={2} title="Its Jacobian">
      <p>How each probability answers to each logit. Rows sum to 0: a constant added to all logits changes nothing.
        Move through the cells with the pointer or the arrow keys.</p>
      <Formula says="partial s n by x m equals s n times, delta n m minus s m">
        <Partial above={<Sub of="s" at="n" />} below={<Sub of="x" at="m" />} /><mo>=</mo>
        <Sub of="s" at="n" /><mo>(</mo><msub><mi>δ</mi><mrow><mi>n</mi><mi>m</mi></mrow></msub><mo>−</mo><Sub of="s" at="m" /><mo>)</mo>
      </Formula>
      <Jacobian steps={steps} />
    </Step>
  );
}

export function LossStep({ shown: { logits, steps } }: { shown: Explained }) {
  const { m, log1p } = steps.stable;
  const counted = steps.target.map((y, n) => [y, n] as const).filter(([y]) => y > 0);
  return (
    <Step n={3} title="Cross entropy">
      <p>The logarithm of a probability that has been rounded to 1 is 0. Written with <i>m</i> and <i>S</i> it is a sum
        of terms of one sign, of which none loses a digit.</p>
      <Formula says="L equals minus the sum over n of y n log s n, equals the sum over n of y n times m minus x n, plus log of 1 plus S">
        <mi>L</mi><mo>=</mo><mo>−</mo><Sum over="n"><Sub of="y" at="n" /><mi>log</mi><Sub of="s" at="n" /></Sum>
        <mo>=</mo><Sum over="n"><Sub of="y" at="n" /><mo>(</mo><mi>m</mi><mo>−</mo><Sub of="x" at="n" /><mo>)</mo></Sum>
        <mo>+</mo><mi>log</mi><mo>(</mo><mn>1</mn><mo>+</mo><mi>S</mi><mo>)</mo>
      </Formula>
      <p class="readout num">
        L = {counted.map(([y, n]) => `${y === 1 ? "" : `${short(y)} × `}(${short(m)} − ${bracketed(logits[n]!)})`).join(" + ")} + {short(log1p)}
        {" = "}<strong data-loss>{digits(steps.loss)}</strong> nats
      </p>
    </Step>
  );
}

export function QuotientStep({ shown: { steps } }: { shown: Explained }) {
  return (
    <Step n={4} title="The loss by the softmax">
      <p>Where the target is 0 the loss does not contain <i>s</i>, so the derivative is 0 there.</p>
      <Formula says="partial L by s n equals minus y n over s n">
        <Partial above={<mi>L</mi>} below={<Sub of="s" at="n" />} /><mo>=</mo><mo>−</mo>
        <mfrac><Sub of="y" at="n" /><Sub of="s" at="n" /></mfrac>
      </Formula>
      {steps.loss_by_softmax_out === null ? <Undefined note={steps.notes[0]} /> : (
        <Scroll label="Loss by the softmax of each class">
          <table class="steps-table">
            <thead><tr><th scope="col">n</th><th scope="col">y</th><th scope="col">s</th><th scope="col">−y / s</th></tr></thead>
            <tbody>
              {steps.loss_by_softmax_out.map((value, n) => (
                <tr key={n}>
                  <th scope="row">{n}</th><td class="num">{digits(steps.target[n]!)}</td>
                  <td class="num">{short(steps.softmax_out[n]!)}</td><td class="num" data-quotient={n}>{digits(value)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </Step>
  );
}

export function ChainStep({ shown: { steps } }: { shown: Explained }) {
  const row = steps.loss_by_softmax_out, product = steps.chain_rule_product;
  return (
    <Step n={5} title="The chain rule: row times matrix">
      <p>The row of step 4 times the matrix of step 2. The <i>s</i> of the matrix cancels the <i>s</i> under the target.</p>
      <Formula says="partial L by x m equals the sum over n of partial L by s n times partial s n by x m">
        <Partial above={<mi>L</mi>} below={<Sub of="x" at="m" />} /><mo>=</mo>
        <Sum over="n"><Partial above={<mi>L</mi>} below={<Sub of="s" at="n" />} /><Partial above={<Sub of="s" at="n" />} below={<Sub of="x" at="m" />} /></Sum>
      </Formula>
      {row === null || product === null ? <Undefined note={steps.notes[1]} /> : (
        <Scroll label="Terms of the chain rule">
          <table class="steps-table">
            <thead><tr><th scope="col">m</th><th scope="col" class="left">the terms that are not 0</th><th scope="col">∂L/∂x</th></tr></thead>
            <tbody>
              {product.map((value, m) => (
                <tr key={m}>
                  <th scope="row">{m}</th><td class="num left terms">{terms(row, steps.softmax_jacobian, m)}</td>
                  <td class="num" data-product={m}>{digits(value)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </Step>
  );
}

export function FusedStep({ shown: { steps } }: { shown: Explained }) {
  const largest = Math.max(...steps.fused_gradient.map(Math.abs), Number.MIN_VALUE);
  return (
    <Step n={6} title="What is left: s − y">
      <p>Nothing is divided any more, and no matrix is formed: <i>C</i> numbers instead of <i>C</i>². This is what the kernels compute.</p>
      <Formula says="partial L by x m equals s m minus y m">
        <Partial above={<mi>L</mi>} below={<Sub of="x" at="m" />} /><mo>=</mo><Sub of="s" at="m" /><mo>−</mo><Sub of="y" at="m" />
      </Formula>
      <Scroll label="Gradient of each class">
        <table class="steps-table">
          <thead><tr><th scope="col">m</th><th scope="col">s − y</th><th scope="col" class="wide"><span class="hidden">bar of the gradient</span></th></tr></thead>
          <tbody>
            {steps.fused_gradient.map((value, m) => (
              <tr key={m}>
                <th scope="row">{m}</th><td class="num" data-gradient={m}>{digits(value)}</td>
                <td><Bar value={value} largest={largest} both /></td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <p class="readout">
        {steps.largest_difference === null
          ? "There is no product of step 5 to compare it with; this form is defined all the same."
          : <>Largest difference from the product of step 5: <strong class="num" data-difference>{digits(steps.largest_difference)}</strong></>}
      </p>
    </Step>
  );
}

function Undefined({ note }: { note: string | undefined }) {
  return <p class="undefined">{note ?? "This step is not defined."}</p>;
}

function terms(row: readonly number[], jacobian: readonly (readonly number[])[], m: number): string {
  const all = row.flatMap((value, n) => (value === 0 ? [] : [`(${short(value)})(${short(jacobian[n]![m]!)})`]));
  const more = all.length > TERMS ? [`${all.length - TERMS} more`] : [];
  return [...all.slice(0, TERMS), ...more].join(" + ");
}

function bracketed(value: number): string {
  return value < 0 ? `(${short(value)})` : short(value);
}
