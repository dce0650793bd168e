/** The view and what it shows, as they stand behind the # of the address. */
import { signal } from "@preact/signals";

export const VIEWS = ["derivation", "playground", "jobs", "service"] as const;
export type View = (typeof VIEWS)[number];

export const view = signal<View>("derivation");

/** Return the view and the parameters that an address names. */
export function readHash(hash: string): { view: View; parameters: URLSearchParams } {
  const [name = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  const found = VIEWS.find((known) => known === name) ?? "derivation";
  return { view: found, parameters: new URLSearchParams(query) };
}

/** Let the address say what is shown, without a new entry in the history. */
export function writeHash(name: View, parameters: Record<string, string>): void {
  const query = Object.entries(parameters).map(([k, v]) => `${k}=${encodeURIComponent(v).replaceAll("%2C", ",")}`);
  history.replaceState(null, "", `#${name}?${query.join("&")}`);
}
