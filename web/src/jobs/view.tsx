/** Jobs: those there are, one that is followed as it runs, and how to submit and cancel. */
import { useEffect, useRef } from "preact/hooks";
import { key, reachable } from "../api";
import { short } from "../numbers";
import { Scroll } from "../scroll";
import { Plot } from "../service/plot";
import { SubmitForm } from "./form";
import { Histogram } from "./histogram";
import { cancel, ended, fault, filter, following, jobs, load, loadRoots, STATES, unwatch, watch, watched, type Job, type Rate, type State } from "./job";

const FIGURES = new Set(["rows", "count", "skipped", "blocks", "loss_sum", "weight_sum", "mean", "perplexity", "accuracy", "numerics"]);

export function Jobs() {
  useEffect(() => {
    if (!reachable.value) return;
    void load();
    loadRoots().catch(() => { /* The list says what is wrong. */ });
  }, [key.value, reachable.value, filter.value]);
  useEffect(() => unwatch, []);
  return (
    <div class="playground">
      <h1>Jobs</h1>
      <p class="lede">Batches too large for one call, over arrays at rest.</p>
      {fault.value && <p class="refusal" role="alert">{fault.value}</p>}
      <SubmitForm />
      {watched.value && <Watched job={watched.value} />}
      <List />
    </div>
  );
}

function List() {
  const toggle = (state: State): void => { filter.value = STATES.filter((one) => (one === state) !== filter.value.includes(one)); };
  return (
    <section aria-labelledby="list">
      <h2 id="list">All jobs</h2>
      <div class="actions" role="group" aria-label="States">
        {STATES.map((state) => <button key={state} type="button" aria-pressed={filter.value.includes(state)} onClick={() => toggle(state)}>{state}</button>)}
        <button type="button" onClick={() => void load()}>Read again</button>
      </div>
      {jobs.value.length === 0 ? <p class="said">No job{filter.value.length > 0 ? " in these states" : " yet"}.</p> : (
        <Scroll label="Jobs">
          <table class="steps-table jobs">
            <caption class="hidden">Jobs, the newest first</caption>
            <thead><tr><th scope="col">job</th><th scope="col" class="left">state</th><th scope="col" class="left">created</th><th scope="col" class="left">logits</th></tr></thead>
            <tbody>
              {jobs.value.map((job) => (
                <tr key={job.id} aria-current={job.id === watched.value?.id}>
                  <th scope="row"><button type="button" class="link num" title={job.id} onClick={() => watch(job)}>{job.id.slice(0, 8)}</button></th>
                  <td class="left">{job.state}</td><td class="num left">{time(job.created)}</td><td class="num left">{String(job.job.logits)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      {following.value !== null && <button type="button" onClick={() => void load(true)}>More</button>}
    </section>
  );
}

function Watched({ job }: { job: Job }) {
  const { progress } = job;
  return (
    <section aria-labelledby="watched">
      <h2 id="watched">Job <span class="num">{job.id}</span></h2>
      <p role="status" data-state={job.state}>
        <strong>{job.state}</strong>{progress && !ended(job) && `: ${progress.rows_done} of ${progress.rows} rows${progress.rows_a_second ? `, ${short(progress.rows_a_second)} a second` : ""}`}
        {progress?.seconds_left && !ended(job) ? `, ${short(progress.seconds_left)} s left` : ""}
      </p>
      {progress && <progress aria-label="Rows done" max={Math.max(1, progress.rows)} value={progress.rows_done} />}
      {job.error && <p class="refusal">{job.error.detail}</p>}
      {!ended(job) && <Cancel key={job.id} job={job} />}
      {progress?.rates && progress.rates.length > 1 && <Rates rates={progress.rates} />}
      {job.result?.loss_histogram && <Histogram histogram={job.result.loss_histogram} />}
      <Members title="Result" members={job.result && figuresOf(job.result)} />
      <Members title="Asked for" members={job.job} />
    </section>
  );
}

function Rates({ rates }: { rates: readonly Rate[] }) {
  const rows = rates.map(({ rows_a_second }) => rows_a_second), latest = rates.at(-1)!;
  const says = `Rows a second over ${short(latest.seconds)} s: ${short(latest.rows_a_second)} now, at most ${short(Math.max(...rows))}`;
  return (
    <>
      <h3>Rows a second</h3>
      <Plot says={says} times={rates.map(({ seconds }) => seconds)} lines={[{ name: "rows", values: rows }]} unit="" elapsed />
    </>
  );
}

function Members({ title, members }: { title: string; members: Readonly<Record<string, unknown>> | null }) {
  if (members === null) return null;
  return (
    <>
      <h3>{title}</h3>
      <dl class="sums">
        {Object.entries(members).filter(([, value]) => value !== null).map(([name, value]) => (
          <div key={name}><dt>{name}</dt><dd class="num" data-member={name}>{told(value)}</dd></div>
        ))}
      </dl>
    </>
  );
}

function Cancel({ job }: { job: Job }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const close = (): void => dialog.current?.close();
  return (
    <>
      <button type="button" onClick={() => dialog.current?.showModal()}>Cancel this job</button>
      <dialog ref={dialog} aria-labelledby="cancel-title">
        <h2 id="cancel-title">Cancel the job?</h2>
        <p>What is finished of the result stays. The same job submitted again goes on from there.</p>
        <div class="actions">
          <button type="button" class="primary" onClick={() => { close(); void cancel(job); }}>Cancel the job</button>
          <button type="button" onClick={close}>Let it run</button>
        </div>
      </dialog>
    </>
  );
}

/** Members of a result that are not those of the job again. */
function figuresOf(result: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(result).filter(([name]) => FIGURES.has(name)));
}

function told(value: unknown): string {
  return Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value);
}

function time(text: string): string {
  return text.replace("T", " ").replace(/\.\d+/, "").replace(/(Z|\+00:00)$/, " UTC");
}
