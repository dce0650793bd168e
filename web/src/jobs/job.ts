/** Jobs as the service tells of them: a list, one that is watched, and what is asked of them. */
import { EventSourceParserStream } from "eventsource-parser/stream";
import { batch, signal } from "@preact/signals";
import { call, Refusal, sentence, Unreachable } from "../api";

export const STATES = ["queued", "running", "succeeded", "failed", "cancelled"] as const;
export type State = (typeof STATES)[number];

/** How fast a run was, between the seconds of the rate before and its own. */
export interface Rate { readonly seconds: number; readonly rows_a_second: number }

/** Rows by loss: `counts[i]` have at least `edges[i]` and less than `edges[i + 1]`. */
export interface LossHistogram {
  readonly edges: readonly number[];
  readonly counts: readonly number[];
  readonly below: number;
  readonly above: number;
  readonly non_finite: number;
}

export interface Job {
  readonly id: string;
  readonly state: State;
  readonly created: string;
  readonly finished: string | null;
  readonly job: Readonly<Record<string, unknown>>;
  readonly progress: {
    readonly rows: number;
    readonly rows_done: number;
    readonly rows_a_second: number | null;
    readonly seconds_left: number | null;
    /** Not of a job of an earlier release. */
    readonly rates?: readonly Rate[];
  } | null;
  readonly result: Readonly<Record<string, unknown>> & { readonly loss_histogram?: LossHistogram } | null;
  readonly error: { readonly detail: string } | null;
}

export const jobs = signal<readonly Job[]>([]);
export const following = signal<string | null>(null);
export const filter = signal<readonly State[]>([]);
export const watched = signal<Job | null>(null);
export const fault = signal<string | null>(null);
export const roots = signal<readonly string[]>([]);

export function ended(job: Job): boolean {
  return job.state !== "queued" && job.state !== "running";
}

/** Run what asks the service, and keep why it failed. */
export async function tell(work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    fault.value = null;
    return true;
  } catch (error) {
    const denied = error instanceof Refusal && error.problem.status === 403;
    fault.value = denied ? `This view needs a key with the scope jobs: ${error.message}.` : sentence(error);
    return false;
  }
}

/** Read the newest jobs, or those that follow the ones shown. */
export function load(more = false): Promise<boolean> {
  return tell(async () => {
    const query = new URLSearchParams({ limit: "20" });
    if (filter.value.length > 0) query.set("state", filter.value.join(","));
    if (more && following.value !== null) query.set("cursor", following.value);
    const page = await (await call(`v1/jobs?${query.toString().replaceAll("%2C", ",")}`)).json() as { jobs: Job[]; next: string | null };
    batch(() => {
      jobs.value = more ? [...jobs.value, ...page.jobs] : page.jobs;
      following.value = page.next;
    });
  });
}

export async function loadRoots(): Promise<void> {
  if (roots.value.length > 0) return;
  roots.value = (await (await call("v1/info")).json() as { roots: string[] }).roots;
}

/** Submit a job and watch it; a job that was sent twice under one key is one job. */
export function submit(members: Record<string, unknown>): Promise<boolean> {
  return tell(async () => {
    const headers = { "content-type": "application/json", "idempotency-key": crypto.randomUUID() };
    const job = await (await call("v1/jobs", { method: "POST", headers, body: JSON.stringify(members) })).json() as Job;
    await load();
    watch(job);
  });
}

export function cancel(job: Job): Promise<boolean> {
  return tell(async () => put(await (await call(`v1/jobs/${job.id}/cancel`, { method: "POST" })).json() as Job));
}

function put(job: Job): void {
  batch(() => {
    if (watched.value?.id === job.id) watched.value = job;
    jobs.value = jobs.value.map((one) => (one.id === job.id ? job : one));
  });
}

let controller: AbortController | null = null;

export function unwatch(): void {
  controller?.abort();
  controller = null;
}

/** Show a job, and follow its events until it has ended. */
export function watch(job: Job): void {
  unwatch();
  watched.value = job;
  if (ended(job)) return;
  const own = controller = new AbortController();
  void tell(() => follow(job.id, own.signal));
}

/** Read the event stream; where it breaks off, go on behind the last event. */
async function follow(id: string, stop: AbortSignal): Promise<void> {
  let last = "";
  while (!stop.aborted) {
    try {
      const headers: Record<string, string> = last === "" ? {} : { "last-event-id": last };
      const response = await call(`v1/jobs/${id}/events`, { headers, signal: stop });
      const events = response.body!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream()).getReader();
      for (let next = await events.read(); !next.done; next = await events.read()) {
        last = next.value.id ?? last;
        const job = JSON.parse(next.value.data) as Job;
        put(job);
        if (ended(job)) return;
      }
    } catch (error) {
      if (stop.aborted) return;
      if (error instanceof Refusal) throw error;
      if (!(error instanceof Unreachable || error instanceof TypeError)) throw error;
    }
    await new Promise((go) => setTimeout(go, 1000));
  }
}
