// Fails where the first load is over its budget: index.html, what it names, and what those import.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const BUDGET = 80_000;
const dist = join(dirname(fileURLToPath(import.meta.url)), "..", "dist");
const seen = new Map();

function add(path) {
  if (seen.has(path)) return;
  const text = readFileSync(join(dist, path));
  seen.set(path, gzipSync(text, { level: 9 }).length);
  if (path.endsWith(".html")) for (const found of text.toString().matchAll(/(?:src|href)="\.\/(assets\/[^"]+)"/g)) add(found[1]);
  if (!path.endsWith(".js")) return;
  const imports = /(?:^|[;}\n])\s*(?:import|export)\b[^"'();]*?(?:from\s*)?["']\.\/([^"']+\.js)["']/g;
  for (const found of text.toString().matchAll(imports)) add(`assets/${found[1]}`);
}

add("index.html");
const total = [...seen.values()].reduce((sum, size) => sum + size, 0);
for (const [path, size] of seen) console.log(`${String(size).padStart(7)}  ${path}`);
console.log(`${String(total).padStart(7)}  first load, gzipped; at most ${BUDGET}`);
if (total > BUDGET) process.exit(1);
