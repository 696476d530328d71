// Which text is mathematics. \( \), \[ \] and $$ $$ always are; a single $ only by Pandoc's rule:
// no blank after the opening one, none before the closing one, no digit after it. So "$5 and $10"
// is money. Markdown would eat the backslash of \( as an escape, hence these come before it. A bare
// \boxed{…} is how reasoning models give their final answer.
import type { TokenizerAndRendererExtension, Tokens } from "marked";

export interface MathToken extends Tokens.Generic {
  type: "math";
  tex: string;
  display: boolean;
  /** False while the closing delimiter of a display is still to come. */
  closed: boolean;
}

export const MAX_TEX = 10_000;
const MAX_BOX = 300;
const BOX = "\\boxed{";
const DELIMITERS: readonly { open: string; close: string; display: boolean }[] = [
  { open: "$$", close: "$$", display: true },
  { open: "\\[", close: "\\]", display: true },
  { open: "\\(", close: "\\)", display: false },
];

/** The formula that starts exactly here, or null. */
export function mathAt(source: string): { raw: string; tex: string; display: boolean } | null {
  for (const { open, close, display } of DELIMITERS) {
    if (!source.startsWith(open)) continue;
    const end = closing(source, open.length, close);
    if (end < 0) continue;
    const tex = source.slice(open.length, end).trim();
    if (tex === "") return null;
    return { raw: source.slice(0, end + close.length), tex, display };
  }
  if (source.startsWith(BOX)) return boxAt(source);
  return source.startsWith("$") && !source.startsWith("$$") ? dollarAt(source) : null;
}

/** A box up to its balanced brace; words inside it are set as text. */
function boxAt(source: string): { raw: string; tex: string; display: boolean } | null {
  let depth = 1;
  for (let at = BOX.length; at < source.length && at < MAX_BOX; at++) {
    if (source[at] === "{") depth++;
    else if (source[at] === "}") depth--;
    else if (source[at] === "\n") return null;
    if (depth > 0) continue;
    const inner = source.slice(BOX.length, at);
    if (inner.trim() === "") return null;
    const isFormula = /[\\^_={}]/.test(inner) || !/\p{L}{2}/u.test(inner);
    const tex = isFormula ? inner : `\\text{${inner}}`;
    return { raw: source.slice(0, at + 1), tex: `\\boxed{${tex}}`, display: false };
  }
  return null;
}

/** Where the delimiter stands, not behind a backslash of its own and not past a blank line. */
function closing(source: string, from: number, close: string): number {
  for (let at = from; at < source.length && at - from <= MAX_TEX; at++) {
    if (source.startsWith(close, at)) return at;
    if (source[at] === "\\") at++;
    else if (source[at] === "\n" && /^[ \t]*\n/.test(source.slice(at + 1, at + 80))) return -1;
  }
  return -1;
}

function dollarAt(source: string): { raw: string; tex: string; display: boolean } | null {
  if (source.length < 3 || /\s/.test(source[1]!)) return null;
  for (let at = 1; at < source.length && at <= MAX_TEX; at++) {
    const letter = source[at]!;
    if (letter === "\\") {
      at++;
    } else if (letter === "\n" && /^[ \t]*\n/.test(source.slice(at + 1, at + 80))) {
      return null;
    } else if (letter === "$") {
      if (/\s/.test(source[at - 1]!)) return null;
      if (/\d/.test(source[at + 1] ?? "")) return null;
      return { raw: source.slice(0, at + 1), tex: source.slice(1, at), display: false };
    }
  }
  return null;
}

function startOf(source: string): number | undefined {
  const found = /\$|\\\(|\\\[|\\boxed\{/.exec(source);
  return found ? found.index : undefined;
}

function token(found: { raw: string; tex: string; display: boolean }, closed = true): MathToken {
  return { type: "math", ...found, closed };
}

export const inlineMath: TokenizerAndRendererExtension = {
  name: "math",
  level: "inline",
  start: startOf,
  tokenizer(source) {
    const found = mathAt(source);
    return found ? token(found) : undefined;
  },
};

/** A display on lines of its own. While text streams in, an open one hides its source. */
export function blockMath(isStreaming: () => boolean): TokenizerAndRendererExtension {
  return {
    name: "mathBlock",
    level: "block",
    start: (source) => {
      const blank = source.search(/\n[ \t]*\n/); // past it, a paragraph has ended anyway
      const paragraph = blank < 0 ? source : source.slice(0, blank);
      const found = /(?:^|\n) {0,3}(?:\$\$|\\\[)/.exec(paragraph);
      return found ? found.index + (found[0].startsWith("\n") ? 1 : 0) : undefined;
    },
    tokenizer(source) {
      const opening = /^ {0,3}(?=\$\$|\\\[)/.exec(source);
      if (!opening) return undefined;
      const found = mathAt(source.slice(opening[0].length));
      if (found) return wholeLines(source, opening[0], found);
      const isOpen = isStreaming() && source.length <= 4000 && !/\n[ \t]*\n/.test(source);
      if (!isOpen) return undefined;
      const tex = source.slice(opening[0].length + 2).trim();
      return token({ raw: source, tex, display: true }, false);
    },
  };
}

/** Only a formula followed by nothing else on its line is a block of its own. */
function wholeLines(
  source: string,
  indent: string,
  found: { raw: string; tex: string; display: boolean },
): MathToken | undefined {
  const raw = indent + found.raw;
  const rest = /^[ \t]*(?:\n+|$)/.exec(source.slice(raw.length));
  return rest ? token({ ...found, raw: raw + rest[0] }) : undefined;
}

/** The text with every formula replaced by letters, so that no emphasis begins or ends inside one. */
export function maskMath(source: string): string {
  if (!/[$\\]/.test(source)) return source;
  let masked = "";
  for (let at = 0; at < source.length; ) {
    const found = source[at] === "$" || source[at] === "\\" ? mathAt(source.slice(at, at + MAX_TEX)) : null;
    if (found) {
      masked += "x".repeat(found.raw.length);
      at += found.raw.length;
    } else {
      masked += source[at]!;
      at += 1;
    }
  }
  return masked;
}
