/** The call that was sent, in other languages. */
import { key, urlOf } from "../api";
import { PATH, type Sent } from "./run";

/** Bodies up to so many characters stand in the code; larger ones are saved to a file. */
const INLINE = 2000;

export type Language = "curl" | "Python" | "JavaScript";
export const LANGUAGES: readonly Language[] = ["curl", "Python", "JavaScript"];

export function fileName(sent: Sent): string | null {
  if (sent.json === null) return "request.safetensors";
  return sent.json.length > INLINE ? "request.json" : null;
}

export function code(language: Language, sent: Sent): string {
  return { curl, Python: python, JavaScript: javascript }[language](sent);
}

function curl(sent: Sent): string {
  const file = fileName(sent);
  const lines = [`curl -s ${shell(urlOf(PATH + sent.query))}`, `-H 'Content-Type: ${sent.body.type}'`];
  if (key.peek() !== null) lines.push('-H "Authorization: Bearer $SOFTXENT_KEY"');
  lines.push(file === null ? `-d ${shell(sent.json!)}` : `--data-binary @${file}`);
  if (sent.json === null) lines.push("--output answer.safetensors");
  return lines.join(" \\\n     ");
}

function shell(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function python(sent: Sent): string {
  return sent.json !== null && fileName(sent) === null ? pythonClient(sent, sent.json) : pythonFile(sent);
}

/** A call of the client, with the numbers as they were typed. */
function pythonClient(sent: Sent, json: string): string {
  const { logits_dtype = "float32", ...options } = Object.fromEntries(new URLSearchParams(sent.query));
  const tensors = Object.keys(JSON.parse(json) as object);
  const secret = key.peek() === null ? "" : ', key=os.environ["SOFTXENT_KEY"]';
  const dtype = logits_dtype === "bfloat16" ? "ml_dtypes.bfloat16" : `np.${logits_dtype}`;
  const values = (name: string): string => (name === "logits" ? `np.array(batch["logits"], ${dtype})` : `${name}=batch["${name}"]`);
  const given = [...tensors.filter((name) => name === "logits"), ...tensors.filter((name) => name !== "logits")].map(values);
  const keywords = Object.entries(options).map(([name, value]) => `${name}=${literal(name, value)}`);
  return [
    "import json",
    ...(secret ? ["import os"] : []),
    "",
    ...(logits_dtype === "bfloat16" ? ["import ml_dtypes"] : []),
    "import numpy as np",
    "from softxent_client import Client",
    "",
    `batch = json.loads(${pythonText(json)})`,
    `with Client(${pythonText(base())}${secret}) as client:`,
    "    result = client.cross_entropy(",
    ...[...given, ...keywords].map((one) => `        ${one},`),
    "    )",
    "print(result)",
  ].join("\n");
}

function literal(name: string, value: string): string {
  if (name === "outputs") return `[${value.split(",").map(pythonText).join(", ")}]`;
  if (value !== "" && Number.isFinite(Number(value))) return value;
  // The word none is null, but where it is one of a choice.
  return value === "none" && !["reduction", "tail"].includes(name) ? "None" : pythonText(value);
}

function pythonFile(sent: Sent): string {
  const secret = key.peek() !== null;
  return [
    ...(secret ? ["import os"] : []),
    "from pathlib import Path",
    "from urllib.request import Request, urlopen",
    "",
    `body = Path("${fileName(sent)}").read_bytes()`,
    `headers = {"Content-Type": "${sent.body.type}"}`,
    ...(secret ? ['headers["Authorization"] = "Bearer " + os.environ["SOFTXENT_KEY"]'] : []),
    `with urlopen(Request(${pythonText(urlOf(PATH + sent.query))}, body, headers)) as answer:`,
    sent.json === null ? '    Path("answer.safetensors").write_bytes(answer.read())' : "    print(answer.read().decode())",
  ].join("\n");
}

/** JSON's escapes are Python's too. */
function pythonText(text: string): string {
  return JSON.stringify(text);
}

function base(): string {
  return urlOf(".").replace(/\/$/, "");
}

function javascript(sent: Sent): string {
  const file = fileName(sent);
  const secret = key.peek() === null ? [] : ["    authorization: `Bearer ${process.env.SOFTXENT_KEY}`,"];
  return [
    ...(file === null ? [] : ['import { readFile } from "node:fs/promises";', ""]),
    `const answer = await fetch(${JSON.stringify(urlOf(PATH + sent.query))}, {`,
    '  method: "POST",',
    "  headers: {",
    `    "content-type": "${sent.body.type}",`,
    ...secret,
    "  },",
    `  body: ${file === null ? JSON.stringify(sent.json) : `await readFile("${file}")`},`,
    "});",
    sent.json === null ? "console.log(answer.status, (await answer.arrayBuffer()).byteLength);" : "console.log(await answer.json());",
  ].join("\n");
}
