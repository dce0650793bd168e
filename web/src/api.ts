/** Calls to the service: keys, refusals in its own words, and whether it answers at all. */
import { signal } from "@preact/signals";

const STORED_KEY = "softxent-key";

/** The key sent with every call; in memory, and in session storage only if the person asked. */
export const key = signal<string | null>(sessionStorage.getItem(STORED_KEY));

/** Why a key is asked for; null while the dialog is closed. */
export const keyRequest = signal<string | null>(null);

/** Whether the service answered last time. */
export const reachable = signal(true);

export interface Problem {
  readonly status: number;
  readonly slug: string;
  readonly detail: string;
  readonly field: string | undefined;
  readonly rows: readonly number[];
  readonly values: readonly unknown[];
  readonly total: number | undefined;
}

/** A refusal of the service, told by its problem document. */
export class Refusal extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
}

/** No answer: the service is stopped, or the connection is gone. */
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer. This page goes on as soon as it does.");
  }
}

export function setKey(text: string | null, keep: boolean): void {
  if (text !== null && keep) sessionStorage.setItem(STORED_KEY, text);
  else sessionStorage.removeItem(STORED_KEY);
  key.value = text;
  keyRequest.value = null;
}

/** Return where a path of the service is, whichever prefix the page was loaded below. */
export function urlOf(path: string): string {
  return new URL(path, document.baseURI).href;
}

/** Call the service; every answer that is no success is thrown as a `Refusal`. */
export async function call(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (key.peek() !== null) headers.set("authorization", `Bearer ${key.peek()}`);
  let response: Response;
  try {
    response = await fetch(urlOf(path), { ...init, headers, credentials: "omit" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    lost();
    throw new Unreachable();
  }
  reachable.value = true;
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (problem.status === 401) {
    keyRequest.value = key.peek() === null
      ? "This service lets in only those who have a key."
      : "The service does not know this key.";
  }
  throw new Refusal(problem);
}

export async function postJson(path: string, body: unknown, signal: AbortSignal): Promise<unknown> {
  const headers = { "content-type": "application/json" };
  const response = await call(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  return response.json();
}

/** Return what to tell a person about a failed call. */
export function sentence(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const denied = error instanceof Refusal && error.problem.status === 403;
  return denied ? `${error.message}. Use another key: the button is at the top.` : error.message;
}

async function problemOf(response: Response): Promise<Problem> {
  const known = await response.json().catch(() => ({})) as Record<string, unknown>;
  const type = typeof known.type === "string" ? known.type : "";
  return {
    status: response.status,
    slug: type.slice(type.lastIndexOf(":") + 1),
    detail: typeof known.detail === "string" ? known.detail : `the service answered ${response.status}`,
    field: typeof known.field === "string" ? known.field : undefined,
    rows: Array.isArray(known.rows) ? known.rows as number[] : [],
    values: Array.isArray(known.values) ? known.values as unknown[] : [],
    total: typeof known.total === "number" ? known.total : undefined,
  };
}

function lost(): void {
  if (!reachable.peek()) return;
  reachable.value = false;
  const look = async (): Promise<void> => {
    try {
      reachable.value = (await fetch(urlOf("v2/health/live"), { credentials: "omit" })).ok;
    } catch {
      reachable.value = false;
    }
    if (!reachable.peek()) setTimeout(look, 1000);
  };
  setTimeout(look, 1000);
}
