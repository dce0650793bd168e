/** Where the row is typed: logits by number or slider, and the target. */
import { useState } from "preact/hooks";
import { parseNumber } from "../numbers";
import { addressFault, change, isFault, LEAST, MOST, PRESETS, requestOf, row, SUM_TOLERANCE, type Row } from "./row";

const FAR = 20;

export function RowInput() {
  const given = row.value;
  const found = requestOf(given);
  const bad = isFault(found) ? found : null;
  return (
    <form class="row-input" aria-label="The row" onSubmit={(event) => event.preventDefault()}>
      <h2>Your row</h2>
      <Presets />
      {addressFault.value && <p class="refusal" role="alert">{addressFault.value}</p>}
      <Kind given={given} />
      <ol class="cells">
        {given.logits.map((text, n) => (
          <Cell key={n} n={n} text={text} given={given} bad={bad?.at === n ? bad.field : null} />
        ))}
      </ol>
      <div class="actions">
        <button type="button" disabled={given.logits.length >= MOST} onClick={() => change(longer(given))}>Add a class</button>
        <button type="button" disabled={given.logits.length <= LEAST} onClick={() => change(shorter(given))}>Remove the last</button>
        <CopyLink />
      </div>
    </form>
  );
}

function Presets() {
  return (
    <ul class="presets" aria-label="Examples">
      {PRESETS.map((preset) => (
        <li key={preset.name}>
          <button type="button" onClick={() => change(preset.row)}>
            <span class="num">{preset.name}</span> <small>{preset.says}</small>
          </button>
        </li>
      ))}
    </ul>
  );
}

function Kind({ given }: { given: Row }) {
  const sum = given.target.reduce((total, text) => total + (parseNumber(text) ?? NaN), 0);
  return (
    <fieldset class="kind">
      <legend>Target</legend>
      <label><input type="radio" name="kind" checked={given.kind === "label"} onChange={() => change({ ...given, kind: "label" })} /> a label</label>
      <label><input type="radio" name="kind" checked={given.kind === "probabilities"} onChange={() => change({ ...given, kind: "probabilities" })} /> probabilities</label>
      {given.kind === "probabilities" && Math.abs(sum - 1) > SUM_TOLERANCE && (
        <button type="button" disabled={!(sum > 0)} onClick={() => change({ ...given, target: given.target.map((text) => String(Number(text) / sum)) })}>
          Divide by their sum
        </button>
      )}
    </fieldset>
  );
}

interface CellProps {
  n: number;
  text: string;
  given: Row;
  bad: "logits" | "target" | null;
}

function Cell({ n, text, given, bad }: CellProps) {
  const set = (next: string): void => change({ ...given, logits: given.logits.with(n, next) });
  const value = parseNumber(text);
  return (
    <li>
      <span class="class" aria-hidden="true">{n}</span>
      <input class="num" inputMode="decimal" aria-label={`Logit of class ${n}`} aria-invalid={bad === "logits"} value={text}
        onInput={(event) => set(event.currentTarget.value)} />
      <input type="range" min={-FAR} max={FAR} step="0.1" aria-label={`Slider for the logit of class ${n}`}
        aria-valuetext={text} value={String(Math.max(-FAR, Math.min(FAR, value ?? 0)))} onInput={(event) => set(event.currentTarget.value)} />
      {given.kind === "label" ? (
        <label class="is-label">
          <input type="radio" name="label" aria-label={`Class ${n} is the label`} checked={given.label === n} onChange={() => change({ ...given, label: n })} />
          <span aria-hidden="true">label</span>
        </label>
      ) : (
        <input class="num" inputMode="decimal" aria-label={`Probability of class ${n}`} aria-invalid={bad === "target"} value={given.target[n]}
          onInput={(event) => change({ ...given, target: given.target.with(n, event.currentTarget.value) })} />
      )}
    </li>
  );
}

function longer(given: Row): Row {
  return { ...given, logits: [...given.logits, "0"], target: [...given.target, "0"] };
}

function shorter(given: Row): Row {
  const length = given.logits.length - 1;
  return {
    ...given,
    logits: given.logits.slice(0, length),
    target: given.target.slice(0, length),
    label: Math.min(given.label, length - 1),
  };
}

function CopyLink() {
  const [said, say] = useState("");
  const copy = async (): Promise<void> => {
    change(row.value);
    try {
      await navigator.clipboard.writeText(location.href);
      say("Copied.");
    } catch {
      say("The address of this page names the row: copy it from the address bar.");
    }
  };
  return (
    <>
      <button type="button" onClick={copy}>Copy a link to this row</button>
      <span class="said" role="status">{said}</span>
    </>
  );
}
