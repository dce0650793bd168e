// Bundles src/ into the folder that the service serves, with the list of its files.
import { build } from "esbuild";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";

const target = "../service/softxent_service/web";

/** Most bytes of the packages in all scripts together, before compression. */
const PACKAGE_BYTES = 80_000;

const types = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".txt": "text/plain; charset=utf-8",
};

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });

/** The module "runbook": the table of refusals in the operator's document. */
const runbook = {
  name: "runbook",
  setup(setup) {
    setup.onResolve({ filter: /^runbook$/ }, () => ({ path: "runbook", namespace: "document" }));
    setup.onLoad({ filter: /.*/, namespace: "document" }, async () => {
      const document = await readFile("../docs/operations.md", "utf8");
      const [, table] = document.split("| reason | status | what an operator does |\n");
      const rows = table.split("\n\n")[0].split("\n").slice(1).map((line) => line.split("|").map((cell) => cell.trim().replaceAll("`", "")));
      const words = Object.fromEntries(rows.map(([, reason, , does]) => [reason, does]));
      return { contents: `export const RUNBOOK = ${JSON.stringify(words)};` };
    });
  },
};

const { metafile } = await build({
  entryPoints: ["src/main.tsx", "src/page.css"],
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  jsx: "automatic",
  jsxImportSource: "preact",
  outdir: target,
  plugins: [runbook],
  metafile: true,
  logLevel: "warning",
});

const built = Object.entries(metafile.outputs);
const outputOf = (source) => basename(built.find(([, output]) => output.entryPoint === source)[0]);
const notices = await thirdPartyNotices(metafile.inputs);
await writeFile(join(target, "third-party-notices.txt"), notices);

const script = outputOf("src/main.tsx");
const imported = loadedWith(script);
const template = await readFile("src/index.html", "utf8");
const index = template
  .replace("{script}", `web/${script}`)
  .replace("{style}", `web/${outputOf("src/page.css")}`)
  .replace("{preloads}", imported.map((name) => `<link rel="modulepreload" href="web/${name}">`).join("\n"));
await writeFile(join(target, "index.html"), index);

const packaged = bytesOfPackages();
if (packaged > PACKAGE_BYTES) throw new Error(`The packages of the page take ${packaged} bytes; at most ${PACKAGE_BYTES} may be sent.`);

const names = (await readdir(target)).sort();
const manifest = Object.fromEntries(names.map((name) => [name, types[name.slice(name.lastIndexOf("."))]]));
await writeFile(join(target, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");

/** Return the scripts that a script imports at once, so that the browser need not read it to know them. */
function loadedWith(name) {
  const [, { imports }] = built.find(([path]) => basename(path) === name);
  return imports.filter(({ kind }) => kind === "import-statement").map(({ path }) => basename(path)).sort();
}

/** Return how many bytes of all scripts come from packages. */
function bytesOfPackages() {
  const scripts = built.filter(([path]) => path.endsWith(".js"));
  const parts = scripts.flatMap(([, { inputs }]) => Object.entries(inputs)).filter(([path]) => path.startsWith("node_modules/"));
  return parts.reduce((sum, [, { bytesInOutput }]) => sum + bytesInOutput, 0);
}

/** Name each package that is part of the bundle, with its licence. */
async function thirdPartyNotices(inputs) {
  const packages = new Set();
  for (const path of Object.keys(inputs)) {
    const found = path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/);
    if (found) packages.add(found[1]);
  }
  const sections = [];
  for (const name of [...packages].sort()) {
    const folder = join("node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file ? await readFile(join(folder, file), "utf8") : "";
    sections.push(`${name} ${version} (${license})\n\n${text.replace(/\r\n/g, "\n").trim()}\n`);
  }
  return `The page contains these packages.\n\n${sections.join(`\n${"-".repeat(72)}\n\n`)}`;
}
