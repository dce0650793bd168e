/** The playground: any batch in, loss and gradient out, and the same call to take along. */
import { signal } from "@preact/signals";
import { useEffect, useMemo, useState } from "preact/hooks";
import { reachable, sentence } from "../api";
import { digits } from "../numbers";
import { Scroll } from "../scroll";
import { code, fileName, LANGUAGES, type Language } from "./code";
import { HeatMap } from "./heat";
import { loadOptions, Options } from "./options";
import { focusedRow, Rows, rowsOf } from "./rows";
import { fault, outcome, run, running, type Outcome, type Sent } from "./run";
import { fault as fileFault, files, readFile, ROLES, text, typed, type Given, type Role } from "./sources";
import { count } from "./tensor";

/** Roles that were chosen for tensors of the text, by name. */
const textRoles = signal<Readonly<Record<string, Role | null>>>({});

interface Batch { given: readonly Given[]; whole: string | null; fault: string | null }

function batchOf(source: string, roles: Readonly<Record<string, Role | null>>, dropped: readonly Given[]): Batch {
  try {
    const { given, whole } = typed(source);
    const own = given.map((one) => (Object.hasOwn(roles, one.tensor.name) ? { ...one, role: roles[one.tensor.name] ?? null } : one));
    const taken = new Set(dropped.map(({ role }) => role));
    const left = own.map((one) => (taken.has(one.role) ? { ...one, role: null } : one));
    return { given: [...left, ...dropped], whole: dropped.length === 0 ? whole : null, fault: null };
  } catch (error) {
    return { given: dropped, whole: null, fault: (error as Error).message };
  }
}

export function Playground() {
  const [failed, setFailed] = useState<string | null>(null);
  const alive = reachable.value;
  useEffect(() => { if (alive) loadOptions().then(() => setFailed(null), (error) => setFailed(sentence(error))); }, [alive]);
  const batch = useMemo(() => batchOf(text.value, textRoles.value, files.value), [text.value, textRoles.value, files.value]);
  const send = (): void => { if (batch.fault === null) void run(batch.given, batch.whole); };
  const press = (event: KeyboardEvent): void => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    if ((event.target as Element).closest("a, dialog")) return;
    event.preventDefault();
    send();
  };
  // Of the whole page: a click beside the text takes the focus out of the playground.
  useEffect(() => {
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });
  return (
    <div class="playground">
      <h1>Playground</h1>
      <p class="lede">Paste or drop a batch: JSON, CSV, <span class="num">.npy</span> or safetensors. It goes to this service and nowhere else.</p>
      <Source />
      {[batch.fault, fileFault.value, failed].map((says) => says && <p key={says} class="refusal" role="alert">{says}</p>)}
      <Tensors given={batch.given} />
      <Options />
      <div class="actions">
        <button type="button" class="primary" disabled={running.value || batch.fault !== null} onClick={send}>Run</button>
        <span class="said"><kbd>Ctrl</kbd>+<kbd>Enter</kbd> runs too</span>
        <span class="said" role="status">{running.value ? "Running…" : ""}</span>
      </div>
      {fault.value && <p class="refusal" role="alert">{fault.value}</p>}
      {outcome.value && <Result outcome={outcome.value} />}
    </div>
  );
}

function Source() {
  const [over, setOver] = useState(false);
  const take = (list: FileList | null | undefined): void => {
    void [...list ?? []].reduce((before, file) => before.then(() => readFile(file)), Promise.resolve());
  };
  const drop = (event: DragEvent): void => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer?.files);
  };
  return (
    <div class={over ? "source over" : "source"} onDrop={drop} onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)}>
      <label>
        <span class="hidden">JSON or CSV</span>
        <textarea class="num" rows={7} spellcheck={false} value={text.value} onInput={(event) => { text.value = event.currentTarget.value; }} />
      </label>
      <label class="file">
        Files: choose them here or drop them above
        <input type="file" multiple onChange={(event) => { take(event.currentTarget.files); event.currentTarget.value = ""; }} />
      </label>
    </div>
  );
}

function Tensors({ given }: { given: readonly Given[] }) {
  const choose = (one: Given, role: Role | null): void => {
    const cleared = files.value.map((file) => (file.tensor === one.tensor ? { ...file, role } : file.role === role ? { ...file, role: null } : file));
    if (one.from === "text") textRoles.value = { ...textRoles.value, [one.tensor.name]: role };
    files.value = cleared;
  };
  const remove = (one: Given): void => { files.value = files.value.filter((file) => file.tensor !== one.tensor); };
  if (given.length === 0) return null;
  return (
    <Scroll label="What was found">
      <table class="steps-table tensors">
        <caption class="hidden">What was found, and the role of each</caption>
        <thead><tr><th scope="col">found</th><th scope="col" class="left">shape</th><th scope="col" class="left">dtype</th><th scope="col" class="left">role</th><th scope="col"><span class="hidden">remove</span></th></tr></thead>
        <tbody>
          {given.map((one, n) => (
            <tr key={n}>
              <th scope="row"><span class="name">{one.tensor.name}</span> {one.from !== "text" && <small>{one.from}</small>}</th>
              <td class="num left">{one.tensor.shape.join(" × ") || "one number"}</td>
              <td class="num left">{one.tensor.dtype ?? "as typed"}</td>
              <td class="left">
                <select aria-label={`Role of ${one.tensor.name}`} value={one.role ?? ""} onChange={(event) => choose(one, (event.currentTarget.value || null) as Role | null)}>
                  <option value="">left out</option>{ROLES.map((role) => <option key={role}>{role}</option>)}
                </select>
              </td>
              <td>{one.from !== "text" && <button type="button" class="quiet" aria-label={`Remove ${one.tensor.name}`} onClick={() => remove(one)}>×</button>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function Result({ outcome: found }: { outcome: Outcome }) {
  const perClass = [...found.outputs].filter(([, tensor]) => count(tensor.shape) === count(found.logits.shape));
  const [name, setName] = useState("gradient");
  const shown = perClass.find(([one]) => one === name) ?? perClass[0];
  return (
    <section aria-labelledby="result">
      <h2 id="result">{found.problem === null ? "Result" : "Refused"}</h2>
      {found.problem && <RefusedRows outcome={found} />}
      {found.problem === null && (
        <dl class="sums">
          {Object.entries(found.sums).map(([one, value]) => <div key={one}><dt>{one}</dt><dd class="num" data-sum={one}>{value.replaceAll("-", "−")}</dd></div>)}
          <div><dt>round trip</dt><dd class="num">{digits(Math.round(found.sent.milliseconds))} ms</dd></div>
        </dl>
      )}
      <Rows outcome={found} />
      {shown && (
        <>
          {perClass.length > 1 && (
            <label class="field inline">Shown <select value={shown[0]} onChange={(event) => setName(event.currentTarget.value)}>{perClass.map(([one]) => <option key={one}>{one}</option>)}</select></label>
          )}
          <h3>{shown[0]}</h3>
          <HeatMap name={shown[0]} tensor={shown[1]} logits={found.logits} />
        </>
      )}
      <TakeAlong sent={found.sent} />
    </section>
  );
}

function RefusedRows({ outcome: { problem, ...found } }: { outcome: Outcome }) {
  const rows = rowsOf({ problem, ...found });
  const known = problem!.rows.filter((row) => row < rows);
  if (known.length === 0) return null;
  return (
    <p class="refused-rows">
      Rows at fault{problem!.total !== undefined && problem!.total > known.length ? ` (the first of ${problem!.total})` : ""}:{" "}
      {known.map((row) => <button key={row} type="button" class="link num" onClick={() => { focusedRow.value = row; }}>row {row}</button>)}
    </p>
  );
}

function TakeAlong({ sent }: { sent: Sent }) {
  const [language, setLanguage] = useState<Language>("curl");
  const [said, say] = useState("");
  const shown = code(language, sent), file = fileName(sent);
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(shown).then(() => say("Copied."), () => say("The browser does not let this page copy; select the text."));
  };
  return (
    <section aria-labelledby="take-along">
      <h3 id="take-along">The same call</h3>
      <div class="actions" role="group" aria-label="Language">
        {LANGUAGES.map((one) => <button key={one} type="button" aria-pressed={one === language} onClick={() => { setLanguage(one); say(""); }}>{one}</button>)}
        <button type="button" onClick={copy}>Copy</button>
        {file !== null && <SaveBody sent={sent} name={file} />}
        <span class="said" role="status">{said}</span>
      </div>
      <pre class="num" tabIndex={0} aria-label={`The call in ${language}`}>{shown}</pre>
    </section>
  );
}

function SaveBody({ sent, name }: { sent: Sent; name: string }) {
  const [url, setUrl] = useState("");
  useEffect(() => {
    const made = URL.createObjectURL(sent.body);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [sent]);
  return <a href={url} download={name}>Save {name}, the body that was sent</a>;
}
