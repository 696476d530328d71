// Builds dist/: the app, the preview page as one file, Pyodide's files, and the headers under which
// a server must serve them.
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { HEADERS } from "./headers.mjs";

const web = join(dirname(fileURLToPath(import.meta.url)), "..");
const dist = join(web, "dist");
const PYODIDE_FILES = ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json"];

/** One file without imports, as text. */
async function bundle(entry, plugins = []) {
  const result = await build({
    root: web,
    configFile: false,
    logLevel: "warn",
    plugins,
    build: {
      write: false,
      target: "es2022",
      lib: { entry: join(web, entry), formats: ["iife"], name: "preview", fileName: "bundle" },
    },
  });
  return [result].flat()[0].output[0].code;
}

function workers(texts) {
  const name = "virtual:preview-workers";
  return {
    name: "preview-workers",
    resolveId: (id) => (id === name ? `\0${name}` : null),
    load: (id) =>
      id === `\0${name}`
        ? Object.entries(texts).map(([key, text]) => `export const ${key} = ${JSON.stringify(text)};`).join("\n")
        : null,
  };
}

async function buildPreview() {
  const canvasWorker = await bundle("src/preview/worker_canvas.ts");
  const pythonWorker = await bundle("src/preview/worker_python.ts");
  const shell = await bundle("src/preview/shell.ts", [workers({ canvasWorker, pythonWorker })]);
  const page = await readFile(join(web, "src/preview/shell.html"), "utf8");
  const inline = shell.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");
  await writeFile(join(dist, "preview.html"), page.replace("/*SHELL*/", () => inline));
}

async function copyPyodide() {
  await mkdir(join(dist, "pyodide"), { recursive: true });
  for (const name of PYODIDE_FILES) await cp(join(web, "node_modules/pyodide", name), join(dist, "pyodide", name));
}

await build({ root: web, logLevel: "warn" });
await buildPreview();
await copyPyodide();
await writeFile(join(dist, "headers.json"), `${JSON.stringify(HEADERS, null, 2)}\n`);
