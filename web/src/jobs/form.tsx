/** The form that submits a job over arrays below the allowed roots. */
import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { call } from "../api";
import { jsonOf, OptionFields, type Chosen, type Option } from "../options";
import { fitting, known, listSays, loadArrays, told } from "./arrays";
import { roots, submit, tell } from "./job";

/** The targets of a job, each by the tensors that it is made of. */
const TARGETS: Readonly<Record<string, readonly string[]>> = {
  labels: ["labels"],
  probabilities: ["target_probabilities"],
  "top-k": ["target_indices", "target_log_probabilities"],
  "labels and probabilities": ["labels", "target_probabilities"],
  "labels and top-k": ["labels", "target_indices", "target_log_probabilities"],
};

const WEIGHTS = ["row_weights", "class_weights", "class_mask"] as const;

const SAYS: Readonly<Record<string, string>> = {
  logits: "A row of C logits an entry: [n, C], or more dimensions",
  labels: "The class of each row: [n]",
  target_probabilities: "A probability a class: [n, C]",
  target_indices: "The K classes of each row: [n, K]",
  target_log_probabilities: "Their log-probabilities: [n, K]",
  row_weights: "Optional: [n]",
  class_weights: "Optional: [C]",
  class_mask: "Optional: [C] or [n, C]",
  output: "The Zarr group to be made",
};

const options = signal<readonly Option[]>([]);

interface Property { readonly format?: string; readonly default: unknown; readonly description: string }

/** Read which options a job has: its members that are no URLs. */
function loadOptions(): Promise<boolean> {
  return tell(async () => {
    if (options.peek().length > 0) return;
    interface Document { components: { schemas: { JobSpecification: { properties: Record<string, Property> } } } }
    const document = await (await call("openapi.json")).json() as Document;
    options.value = Object.entries(document.components.schemas.JobSpecification.properties)
      .filter(([, { format }]) => format !== "uri")
      .map(([name, schema]) => ({ name, description: schema.description, schema }));
  });
}

export function SubmitForm() {
  const [target, setTarget] = useState("labels");
  const [urls, setUrls] = useState<Readonly<Record<string, string>>>({});
  const [chosen, setChosen] = useState<Chosen>({});
  const [busy, setBusy] = useState(false);
  const names = ["logits", ...TARGETS[target]!, ...WEIGHTS];
  const send = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const given = [...names, "output"].map((name) => [name, urls[name]?.trim() ?? ""]).filter(([, url]) => url !== "");
    const set = options.value.filter(({ name }) => (chosen[name] ?? "") !== "").map((option) => [option.name, jsonOf(option, chosen[option.name]!)]);
    setBusy(true);
    await submit(Object.fromEntries([...given, ...set]));
    setBusy(false);
  };
  const open = (event: Event): void => {
    if (!(event.currentTarget as HTMLDetailsElement).open) return;
    void loadOptions();
    void loadArrays();
  };
  const root = roots.value[0] ?? "file:///data";
  const field = (name: string, required: boolean) => (
    <Url key={name} name={name} says={SAYS[name]!} root={root} required={required} value={urls[name] ?? ""}
      set={(url) => setUrls((before) => ({ ...before, [name]: url }))} />
  );
  return (
    <details class="options" onToggle={open}>
      <summary>Submit a job</summary>
      <form onSubmit={send}>
        <p class="said">URLs of arrays (Zarr v3 or <span class="num">.npy</span>) below {roots.value.length === 1 ? "this root" : "one of these roots"}: {roots.value.map((one) => <code key={one} class="num">{one} </code>)}</p>
        <p class="said" role="status">{listSays.value}</p>
        <datalist id="roots">{roots.value.map((one) => <option key={one} value={`${one}/`} />)}</datalist>
        <div class="grid">
          {field("logits", true)}
          <div class="field">
            <label for="target">Target</label>
            <select id="target" aria-describedby="target-says" value={target} onChange={(event) => setTarget(event.currentTarget.value)}>{Object.keys(TARGETS).map((one) => <option key={one}>{one}</option>)}</select>
            <small id="target-says">What the rows are compared with</small>
          </div>
          {TARGETS[target]!.map((name) => field(name, true))}
          {WEIGHTS.map((name) => field(name, false))}
          {field("output", true)}
        </div>
        <OptionFields title="Options of the job" options={options.value} chosen={chosen} choose={setChosen} />
        <div class="actions"><button type="submit" class="primary" disabled={busy}>Submit</button></div>
      </form>
    </details>
  );
}

interface UrlProps {
  readonly name: string;
  readonly says: string;
  readonly root: string;
  readonly required: boolean;
  readonly value: string;
  readonly set: (url: string) => void;
}

function Url({ name, says, root, required, value, set }: UrlProps) {
  const found = known(value.trim());
  return (
    <div class="field">
      <label class="num" for={`url-${name}`}>{name}</label>
      <input class="num" id={`url-${name}`} name={name} required={required} list={name === "output" ? "roots" : `arrays-${name}`} value={value} placeholder={`${root}/${name}.${name === "output" ? "zarr" : "npy"}`}
        spellcheck={false} autocomplete="off" aria-describedby={`url-${name}-says`} onInput={(event) => set(event.currentTarget.value)} />
      <small id={`url-${name}-says`} data-found={found !== null}>{found ?? says}</small>
      {name !== "output" && <datalist id={`arrays-${name}`}>{fitting(name).map((one) => <option key={one.url} value={one.url}>{told(one)}</option>)}</datalist>}
    </div>
  );
}
