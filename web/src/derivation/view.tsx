/** The landing view: a row on the left, every step of its derivation on the right. */
import { useLayoutEffect } from "preact/hooks";
import { explained, fault, follow } from "./explanation";
import { RowInput } from "./input";
import { NaiveStep } from "./naive";
import { ChainStep, FusedStep, JacobianStep, LossStep, QuotientStep, SoftmaxStep } from "./steps";

const STEPS = [SoftmaxStep, JacobianStep, LossStep, QuotientStep, ChainStep, FusedStep, NaiveStep];

export function Derivation() {
  // Not after the first paint: the numbers are asked for while it is made.
  useLayoutEffect(follow, []);
  const shown = explained.value;
  return (
    <div class="two">
      <div class="aside"><RowInput /></div>
      <article>
        <h1>From softmax to <i>s − y</i></h1>
        <p class="lede">Softmax cross-entropy and its gradient, derived on your own numbers. Every value below was
          computed by this service in the moment you typed.</p>
        <p class="refusal" role="alert" hidden={fault.value === null}>{fault.value}</p>
        <div class={fault.value === null ? "" : "stale"} aria-busy={shown === null}>
          {shown && STEPS.map((One, n) => <One key={n} shown={shown} />)}
        </div>
      </article>
    </div>
  );
}
