/** The options of an evaluation, and the query that they make. */
import { signal } from "@preact/signals";
import { call } from "../api";
import { OptionFields, type Chosen, type Option } from "../options";

export const options = signal<readonly Option[]>([]);

export const chosen = signal<Chosen>({});

export async function loadOptions(): Promise<void> {
  if (options.peek().length > 0) return;
  interface Document { paths: Record<string, { post: { parameters: Option[] } }> }
  const document = await (await call("openapi.json")).json() as Document;
  options.value = document.paths["/v1/cross_entropy"]!.post.parameters;
}

/** Return the query of what differs from its default. */
export function query(): string {
  const given = Object.entries(chosen.value).filter(([, value]) => value !== "");
  const text = new URLSearchParams(given).toString().replaceAll("%2C", ",");
  return text === "" ? "" : `?${text}`;
}

export function Options() {
  return <OptionFields title="Options" options={options.value} chosen={chosen.value} choose={(next) => { chosen.value = next; }} />;
}
