/** Reads Prometheus's text form, and makes figures of two readings. */

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Reading {
  /** Seconds, of the clock of this page. */
  readonly at: number;
  readonly samples: readonly Sample[];
}

export function parse(text: string): Sample[] {
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).map((line) => {
    const [, name, labels = "", value] = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line)!;
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, one]) => [key, one] as const);
    return { name: name!, labels: Object.fromEntries(pairs) as Record<string, string>, value: Number(value) };
  });
}

/** Return the sum of a metric over its labels. */
export function total(reading: Reading, name: string): number {
  return reading.samples.reduce((sum, sample) => (sample.name === name ? sum + sample.value : sum), 0);
}

/** Return the values of a metric by one label. */
export function by(reading: Reading, name: string, label: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const sample of reading.samples) {
    if (sample.name !== name) continue;
    const key = sample.labels[label] ?? "";
    found.set(key, (found.get(key) ?? 0) + sample.value);
  }
  return found;
}

export interface Figures {
  readonly at: number;
  readonly rate: number;
  readonly p50: number | null;
  readonly p99: number | null;
  readonly stages: ReadonlyMap<string, number>;
}

/** Return what happened between two readings; null if counts fell, as they do after a restart. */
export function between(before: Reading, after: Reading): Figures | null {
  const requests = total(after, REQUESTS) - total(before, REQUESTS);
  if (requests < 0) return null;
  const buckets = difference(by(before, BUCKETS, "le"), by(after, BUCKETS, "le"));
  return {
    at: after.at,
    rate: requests / (after.at - before.at),
    p50: quantile(buckets, 0.5),
    p99: quantile(buckets, 0.99),
    stages: difference(by(before, STAGES, "stage"), by(after, STAGES, "stage")),
  };
}

const REQUESTS = "softxent_requests_total";
const BUCKETS = "softxent_request_seconds_bucket";
const STAGES = "softxent_stage_seconds_total";

function difference(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): Map<string, number> {
  return new Map([...after].map(([key, value]) => [key, value - (before.get(key) ?? 0)]));
}

/** Return the quantile in seconds, interpolated inside its bucket; null if there were no requests. */
export function quantile(buckets: ReadonlyMap<string, number>, share: number): number | null {
  const edges = [...buckets].map(([le, n]) => [le === "+Inf" ? Infinity : Number(le), n] as const).sort(([a], [b]) => a - b);
  const all = edges.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  const wanted = share * all;
  const at = edges.findIndex(([, n]) => n >= wanted);
  const [low, below] = at === 0 ? [0, 0] : edges[at - 1]!;
  const [high, through] = edges[at]!;
  return high === Infinity ? low : low + (high - low) * ((wanted - below) / (through - below));
}
