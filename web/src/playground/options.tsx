/** The options of an evaluation, as the OpenAPI document declares them. */
import { signal } from "@preact/signals";
import { call } from "../api";

interface Schema {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly items?: { readonly enum: readonly string[] };
  readonly oneOf?: readonly Schema[];
  readonly default: unknown;
}

export interface Option {
  readonly name: string;
  readonly description: string;
  readonly schema: Schema;
}

export const options = signal<readonly Option[]>([]);

/** What was chosen, by name; what is not here, or empty, has its default. */
export const chosen = signal<Readonly<Record<string, string>>>({});

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

function choose(option: Option, value: string): void {
  const { [option.name]: _, ...rest } = chosen.value;
  chosen.value = value === defaultOf(option) ? rest : { ...rest, [option.name]: value };
}

function defaultOf(option: Option): string {
  const value = option.schema.default;
  return Array.isArray(value) ? value.join(",") : String(value);
}

export function Options() {
  return (
    <details class="options">
      <summary>Options{Object.keys(chosen.value).length > 0 && `: ${new URLSearchParams(chosen.value)}`}</summary>
      <div class="grid">{options.value.map((option) => <Field key={option.name} option={option} />)}</div>
    </details>
  );
}

function Field({ option }: { option: Option }) {
  const { name, description, schema } = option;
  const value = chosen.value[name] ?? defaultOf(option);
  if (schema.items) return <Several option={option} names={schema.items.enum} value={value.split(",")} />;
  const words = schema.enum ?? schema.oneOf?.flatMap((one) => one.enum ?? []);
  const all = words?.length && schema.oneOf ? [...words, "none"] : words;
  return (
    <div class="field">
      <label class="num" for={name}>{name}</label>
      {all?.length
        ? <select id={name} aria-describedby={`${name}-says`} value={value} onChange={(event) => choose(option, event.currentTarget.value)}>{all.map((word) => <option key={word}>{word}</option>)}</select>
        : <input id={name} aria-describedby={`${name}-says`} value={value} onInput={(event) => choose(option, event.currentTarget.value.trim())} />}
      <small id={`${name}-says`}>{description}</small>
    </div>
  );
}

function Several({ option, names, value }: { option: Option; names: readonly string[]; value: readonly string[] }) {
  const toggle = (name: string): void => choose(option, names.filter((one) => (one === name) !== value.includes(one)).join(","));
  return (
    <fieldset class="several">
      <legend class="num">{option.name}</legend>
      {names.map((name) => (
        <label key={name}><input type="checkbox" checked={value.includes(name)} onChange={() => toggle(name)} /> <span class="num">{name}</span></label>
      ))}
    </fieldset>
  );
}
