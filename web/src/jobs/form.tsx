/** The form that submits a job over arrays below the allowed roots. */
import { useState } from "preact/hooks";
import { roots, submit } from "./job";

const OUTPUTS = ["loss", "gradient", "prediction", "correct", "rank", "entropy"];

export function SubmitForm() {
  const [outputs, setOutputs] = useState<readonly string[]>(["loss"]);
  const [reduction, setReduction] = useState("none");
  const [busy, setBusy] = useState(false);
  const send = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const url = (name: string): string => String(form.get(name) ?? "").trim();
    setBusy(true);
    await submit({ logits: url("logits"), labels: url("labels"), output: url("output"), outputs, reduction });
    setBusy(false);
  };
  const root = roots.value[0] ?? "file:///data";
  return (
    <details class="options">
      <summary>Submit a job</summary>
      <form onSubmit={send}>
        <p class="said">URLs of arrays below {roots.value.length === 1 ? "this root" : "one of these roots"}: {roots.value.map((one) => <code key={one} class="num">{one} </code>)}</p>
        <datalist id="roots">{roots.value.map((one) => <option key={one} value={`${one}/`} />)}</datalist>
        <div class="grid">
          <Url name="logits" says="Zarr v3 or .npy" example={`${root}/logits.zarr`} />
          <Url name="labels" says="Zarr v3 or .npy" example={`${root}/labels.npy`} />
          <Url name="output" says="The Zarr group to be made" example={`${root}/result.zarr`} />
          <label class="field">
            <span class="num">reduction</span>
            <select value={reduction} onChange={(event) => setReduction(event.currentTarget.value)}>{["none", "mean", "sum"].map((one) => <option key={one}>{one}</option>)}</select>
          </label>
          <fieldset class="several">
            <legend class="num">outputs</legend>
            {OUTPUTS.map((one) => (
              <label key={one}>
                <input type="checkbox" checked={outputs.includes(one)} onChange={() => setOutputs(OUTPUTS.filter((name) => (name === one) !== outputs.includes(name)))} /> <span class="num">{one}</span>
              </label>
            ))}
          </fieldset>
        </div>
        <div class="actions"><button type="submit" class="primary" disabled={busy || outputs.length === 0}>Submit</button></div>
      </form>
    </details>
  );
}

function Url({ name, says, example }: { name: string; says: string; example: string }) {
  return (
    <label class="field">
      <span class="num">{name}</span>
      <input name={name} required list="roots" placeholder={example} spellcheck={false} autocomplete="off" />
      <small>{says}</small>
    </label>
  );
}
