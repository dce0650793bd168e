/** The losses of a finished job: how many rows lie in each bin, as bars and as a table. */
import { Bar } from "../shade";
import { short } from "../numbers";
import { Scroll } from "../scroll";
import type { LossHistogram } from "./job";

/** Most edges that are written below the bars. */
const LABELS = 7;

export function Histogram({ histogram }: { histogram: LossHistogram }) {
  const { edges, counts } = histogram;
  const largest = Math.max(1, ...counts), fullest = counts.indexOf(largest);
  const rows = counts.reduce((sum, count) => sum + count, 0);
  const says = `Histogram of ${rows} losses from ${short(edges[0] ?? 0)} to ${short(edges.at(-1) ?? 0)}`
    + (fullest < 0 ? "" : `; most, ${largest}, lie between ${short(edges[fullest]!)} and ${short(edges[fullest + 1]!)}`);
  return (
    <>
      <h3>Losses of the rows</h3>
      {counts.length > 0 && (
        <>
          <div class="histogram" role="img" aria-label={says}>
            <div class="bars">{counts.map((count, k) => <div key={k} title={`${range(edges, k)}: ${rowsOf(count)}`} style={{ height: `${count / largest * 100}%` }} />)}</div>
            <div class="axis">{labels(edges).map(([at, edge]) => <span key={at} style={{ left: `${at * 100}%` }}>{short(edge)}</span>)}</div>
          </div>
          <p class="said">Loss of a row; four bins between two powers of 2, the fullest holds {rowsOf(largest)}.</p>
        </>
      )}
      <Outside histogram={histogram} />
      {counts.length > 0 && (
        <details class="options">
          <summary>Counts as a table</summary>
          <Scroll label="Losses">
            <table class="steps-table" data-histogram>
              <caption class="hidden">Rows by loss</caption>
              <thead><tr><th scope="col">loss</th><th scope="col">rows</th><th scope="col" class="wide"><span class="hidden">share of the fullest bin</span></th></tr></thead>
              <tbody>{counts.map((count, k) => <tr key={k}><th scope="row" class="num">{range(edges, k)}</th><td class="num">{count}</td><td><Bar value={count} largest={largest} /></td></tr>)}</tbody>
            </table>
          </Scroll>
        </details>
      )}
    </>
  );
}

/** What no bin takes, in words. */
function Outside({ histogram }: { histogram: LossHistogram }) {
  const { below, above, non_finite } = histogram;
  const parts = [
    below > 0 && `${rowsOf(below)} below all bins (0, negative, or under 2.3e\u221210)`,
    above > 0 && `${rowsOf(above)} above all bins (16777216 and more)`,
    non_finite > 0 && `${rowsOf(non_finite)} with a loss that is not finite`,
  ].filter((one) => one !== false);
  return parts.length > 0 ? <p class="said">Besides, {parts.join("; ")}.</p> : null;
}

function rowsOf(count: number): string {
  return `${count} ${count === 1 ? "row" : "rows"}`;
}

function range(edges: readonly number[], k: number): string {
  return `${short(edges[k]!)} to ${short(edges[k + 1]!)}`;
}

/** Return some edges, and where each is between the first and the last: powers of 2 where there are enough. */
function labels(edges: readonly number[]): [number, number][] {
  const bins = edges.length - 1, all = edges.map((edge, k): [number, number] => [k / bins, edge]);
  const powers = all.filter(([, edge]) => Number.isInteger(Math.log2(edge)));
  const shown = powers.length >= 3 ? powers : all;
  const step = Math.ceil(shown.length / LABELS);
  return shown.filter((_, k) => k % step === 0);
}
