/** What the textbook forms give in float32 and float64, with the wrong digits marked. */
import { compare, digits, fromWire, type Compared } from "../numbers";
import { Scroll } from "../scroll";
import type { Explained, NaiveForm } from "./explanation";
import { Step } from "./steps";

const EPSILON = { float32: 2 ** -23, float64: 2 ** -52 } as const;

interface Line {
  readonly name: string;
  readonly right: number;
  readonly scale: number;
  readonly of: (form: NaiveForm) => number;
}

export function NaiveStep({ shown: { steps } }: { shown: Explained }) {
  const lines: Line[] = [
    { name: "L", right: steps.loss, scale: 0, of: (form) => fromWire(form.loss) },
    ...steps.fused_gradient.map((right, m): Line => ({
      name: `∂L/∂x${subscript(m)}`,
      right,
      // Only with probabilities is a difference formed whose digits nobody has.
      scale: steps.target[m] === 1 ? 0 : steps.target[m]!,
      of: (form) => fromWire(form.gradient[m]!),
    })),
  ];
  return (
    <Step n={7} title="What the textbook forms give">
      <p>The same row through <span class="num">exp(x) / sum(exp(x))</span>, <span class="num">−log(s)</span> and <span class="num">s − y</span> as they
        are usually written. Digits that are wrong are struck through; the words beside them say how many are right.</p>
      <Scroll label="Textbook forms beside the right digits">
        <table class="steps-table naive">
          <thead><tr><th scope="col"><span class="hidden">quantity</span></th><th scope="col">here</th><th scope="col">float64</th><th scope="col">float32</th></tr></thead>
          <tbody>
            {lines.map((line) => (
              <tr key={line.name}>
                <th scope="row">{line.name}</th><td class="num">{digits(line.right)}</td>
                {(["float64", "float32"] as const).map((dtype) => (
                  <Marked key={dtype} dtype={dtype} found={compare(line.of(steps.naive[dtype]), line.right, EPSILON[dtype], line.scale)} />
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Step>
  );
}

function Marked({ dtype, found }: { dtype: string; found: Compared }) {
  return (
    <td data-naive={dtype}>
      <span class="num">{found.right}{found.wrong && <del>{found.wrong}</del>}</span>
      <small class={found.wrong ? "off" : ""}>{found.verdict}</small>
    </td>
  );
}

function subscript(n: number): string {
  return String(n).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[Number(digit)]!);
}
