/** What the service does now: rate, latencies, stages, memory, queue and refusals. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { RUNBOOK } from "runbook";
import { call, key, reachable, Refusal, sentence } from "../api";
import { megabytes, short } from "../numbers";
import { Scroll } from "../scroll";
import { Bar } from "../shade";
import { between, by, parse, total, type Figures, type Reading } from "./metrics";
import { Plot } from "./plot";

const SECONDS = 2;
/** Readings that are kept: five minutes. */
const KEPT = 150;

/** Stages of an evaluation, in their order. */
const STAGES = ["read", "queue", "decode", "kernel", "encode"] as const;

interface Info { readonly version: string; readonly workers: number; readonly limits: { readonly memory_bytes: number } }

const info = signal<Info | null>(null);
const last = signal<Reading | null>(null);
const history = signal<readonly Figures[]>([]);
const fault = signal<string | null>(null);

async function read(): Promise<void> {
  try {
    info.value ??= await (await call("v1/info")).json() as Info;
    const text = await (await call("metrics", { headers: { accept: "text/plain" } })).text();
    const reading = { at: Date.now() / 1000, samples: parse(text) };
    const figures = last.value && between(last.value, reading);
    if (figures) history.value = [...history.value, figures].slice(-KEPT);
    last.value = reading;
    fault.value = null;
  } catch (error) {
    const denied = error instanceof Refusal && error.problem.status === 403;
    fault.value = denied ? `This view needs a key with the scope metrics: ${error.message}.` : sentence(error);
  }
}

/** Read now and every two seconds while the tab is visible and the service answers. */
function watch(): () => void {
  const tick = (): void => { if (document.visibilityState === "visible" && reachable.peek()) void read(); };
  tick();
  const timer = setInterval(tick, SECONDS * 1000);
  document.addEventListener("visibilitychange", tick);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", tick);
  };
}

export function ServiceState() {
  useEffect(watch, [key.value, reachable.value]);
  const reading = last.value, figures = history.value.at(-1) ?? null;
  return (
    <div class="playground">
      <h1>Service</h1>
      <p class="lede">What it does now, read every two seconds while this tab is visible.</p>
      {fault.value && <p class="refusal" role="alert">{fault.value}</p>}
      {reading && info.value && (
        <div class={fault.value ? "stale" : ""}>
          <Now reading={reading} figures={figures} info={info.value} />
          <Plots />
          {figures && <Stages figures={figures} />}
          <Refusals reading={reading} />
        </div>
      )}
    </div>
  );
}

function Now({ reading, figures, info: { version, limits } }: { reading: Reading; figures: Figures | null; info: Info }) {
  const processes = Math.max(1, total(reading, "softxent_processes")), ready = total(reading, "softxent_ready");
  const used = total(reading, "softxent_bytes_in_flight"), most = limits.memory_bytes * processes;
  const lines: [string, string, string][] = [
    ["version", version, "version"],
    ["processes ready", `${ready} of ${processes}`, "ready"],
    ["requests a second", figures ? short(figures.rate) : "…", "rate"],
    ["half of them within", milliseconds(figures?.p50), "p50"],
    ["99 % within", milliseconds(figures?.p99), "p99"],
    ["in progress", String(total(reading, "softxent_requests_in_progress")), "progress"],
    ["waiting in the queue", String(total(reading, "softxent_queue_depth")), "queue"],
    ["memory of calls", `${megabytes(used)} of ${megabytes(most)}`, "memory"],
  ];
  return (
    <>
      <dl class="sums">{lines.map(([name, value, id]) => <div key={id}><dt>{name}</dt><dd class="num" data-now={id}>{value}</dd></div>)}</dl>
      <h2 class="minor">Memory of calls: {short((used / most) * 100)} % of its limit</h2>
      <Bar value={used} largest={most} />
      {processes > 1 && <p class="said">{processes} processes share the address, and each has all limits for itself. Figures are their sums; those of the others are up to a second old.</p>}
    </>
  );
}

function Plots() {
  const all = history.value, times = all.map(({ at }) => at), now = all.at(-1);
  return (
    <>
      <h2 class="minor">Requests a second</h2>
      <Plot says={`Requests a second over time, now ${now ? short(now.rate) : "not known yet"}`} times={times} unit="/s" lines={[{ name: "rate", values: all.map(({ rate }) => rate) }]} />
      <h2 class="minor">Time of a request: half of them (line), 99 % (dashed)</h2>
      <Plot says={`Time of a request over time, now half within ${milliseconds(now?.p50)} and 99 % within ${milliseconds(now?.p99)}`} times={times} unit="ms"
        lines={[{ name: "p50", values: all.map(({ p50 }) => p50 && p50 * 1000) }, { name: "p99", values: all.map(({ p99 }) => p99 && p99 * 1000), dashed: true }]} />
    </>
  );
}

function Stages({ figures }: { figures: Figures }) {
  const stages = STAGES.map((stage) => [stage, figures.stages.get(stage) ?? 0] as const), largest = Math.max(...stages.map(([, seconds]) => seconds), 0);
  return (
    <>
      <h2 class="minor">Time by stage, in the last two seconds</h2>
      <Scroll label="Time by stage">
        <table class="steps-table">
          <caption class="hidden">Time that evaluations spent in each stage</caption>
          <thead><tr><th scope="col">stage</th><th scope="col">ms</th><th scope="col" class="wide"><span class="hidden">bar</span></th></tr></thead>
          <tbody>
            {stages.map(([stage, seconds]) => (
              <tr key={stage}><th scope="row">{stage}</th><td class="num">{short(seconds * 1000)}</td><td><Bar value={seconds} largest={largest} /></td></tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}

function Refusals({ reading }: { reading: Reading }) {
  const refusals = [...by(reading, "softxent_refusals_total", "reason")].sort(([, a], [, b]) => b - a);
  return (
    <>
      <h2 class="minor">Refusals since the start</h2>
      {refusals.length === 0 ? <p class="said">None.</p> : (
        <Scroll label="Refusals">
          <table class="steps-table refusals">
            <caption class="hidden">Refusals by reason, and what an operator does</caption>
            <thead><tr><th scope="col">reason</th><th scope="col">count</th><th scope="col" class="left">what an operator does</th></tr></thead>
            <tbody>
              {refusals.map(([reason, count]) => (
                <tr key={reason}><th scope="row">{reason}</th><td class="num" data-refusals={reason}>{count}</td><td class="left">{RUNBOOK[reason] ?? ""}</td></tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </>
  );
}

function milliseconds(seconds: number | null | undefined): string {
  return seconds === null || seconds === undefined ? "…" : `${short(seconds * 1000)} ms`;
}
