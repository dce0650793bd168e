/** Fields for options, as the OpenAPI document declares them. */

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

/** What was chosen, by name; what is not here, or empty, has its default. */
export type Chosen = Readonly<Record<string, string>>;

/** Return what was chosen after one option was set; a default is left out. */
export function withChoice(chosen: Chosen, option: Option, value: string): Chosen {
  const { [option.name]: _, ...rest } = chosen;
  return value === defaultOf(option) ? rest : { ...rest, [option.name]: value };
}

export function defaultOf(option: Option): string {
  const value = option.schema.default;
  return Array.isArray(value) ? value.join(",") : value === null ? "none" : String(value);
}

/** Return a text as a member of a JSON object: what is no number there is sent as it is, and refused. */
export function jsonOf(option: Option, text: string): unknown {
  const { schema } = option;
  if (schema.items) return text.split(",");
  const kinds = [schema, ...schema.oneOf ?? []].map(({ type }) => type);
  if (text === "none" && kinds.includes("null")) return null;
  const numeric = kinds.includes("number") || kinds.includes("integer");
  return numeric && text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

interface FieldsProps {
  readonly title: string;
  readonly options: readonly Option[];
  readonly chosen: Chosen;
  readonly choose: (chosen: Chosen) => void;
}

export function OptionFields({ title, options, chosen, choose }: FieldsProps) {
  return (
    <details class="options">
      <summary>{title}{Object.keys(chosen).length > 0 && `: ${new URLSearchParams(chosen)}`}</summary>
      <div class="grid">
        {options.map((option) => (
          <Field key={option.name} option={option} value={chosen[option.name] ?? defaultOf(option)}
            choose={(value) => choose(withChoice(chosen, option, value))} />
        ))}
      </div>
    </details>
  );
}

interface FieldProps {
  readonly option: Option;
  readonly value: string;
  readonly choose: (value: string) => void;
}

function Field({ option, value, choose }: FieldProps) {
  const { name, description, schema } = option;
  if (schema.items) return <Several name={name} names={schema.items.enum} value={value.split(",")} choose={choose} />;
  const words = schema.enum ?? schema.oneOf?.flatMap((one) => one.enum ?? []);
  const all = words?.length && schema.oneOf ? [...words, "none"] : words;
  return (
    <div class="field">
      <label class="num" for={name}>{name}</label>
      {all?.length
        ? <select id={name} aria-describedby={`${name}-says`} value={value} onChange={(event) => choose(event.currentTarget.value)}>{all.map((word) => <option key={word}>{word}</option>)}</select>
        : <input id={name} aria-describedby={`${name}-says`} value={value} onInput={(event) => choose(event.currentTarget.value.trim())} />}
      <small id={`${name}-says`}>{description}</small>
    </div>
  );
}

function Several({ name, names, value, choose }: { name: string; names: readonly string[]; value: readonly string[]; choose: (value: string) => void }) {
  const toggle = (one: string): void => choose(names.filter((other) => (other === one) !== value.includes(other)).join(","));
  return (
    <fieldset class="several">
      <legend class="num">{name}</legend>
      {names.map((one) => (
        <label key={one}><input type="checkbox" checked={value.includes(one)} onChange={() => toggle(one)} /> <span class="num">{one}</span></label>
      ))}
    </fieldset>
  );
}
