/** Formulas as MathML. */
import type { ComponentChildren } from "preact";

export function Formula({ says, children }: { says: string; children: ComponentChildren }) {
  return <math display="block" aria-label={says}>{children}</math>;
}

export function Sub({ of, at }: { of: string; at: string }) {
  return <msub><mi>{of}</mi><mi>{at}</mi></msub>;
}

/** d above / d below, with a curly d. */
export function Partial({ above, below }: { above: ComponentChildren; below: ComponentChildren }) {
  return (
    <mfrac>
      <mrow><mo>∂</mo>{above}</mrow>
      <mrow><mo>∂</mo>{below}</mrow>
    </mfrac>
  );
}

export function Sum({ over, children }: { over: string; children: ComponentChildren }) {
  return <mrow><munder><mo>∑</mo><mi>{over}</mi></munder>{children}</mrow>;
}
