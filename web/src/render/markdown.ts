// Text to blocks. While an answer streams in, only its last block is parsed again: a block is
// settled once a whole line of a later one has arrived, since nothing can then reach back into it.
import { Lexer, Marked, type Token, type TokensList } from "marked";
import { blockMath, inlineMath, maskMath } from "./math.ts";

let streaming = false;

const parser = new Marked({
  gfm: true,
  breaks: false,
  extensions: [blockMath(() => streaming), inlineMath],
  hooks: { emStrongMask: maskMath },
});

export interface Block {
  /** Where the block starts in the whole text: its identity from one parse to the next. */
  start: number;
  token: Token;
}

type Links = TokensList["links"];

export function parseAll(text: string): Block[] {
  return lex(text, 0, {}, false).blocks;
}

function lex(text: string, offset: number, links: Links, isStreaming: boolean): { blocks: Block[]; links: Links } {
  streaming = isStreaming;
  try {
    const lexer = new Lexer(parser.defaults);
    Object.assign(lexer.tokens.links, links);
    const tokens = lexer.lex(text);
    let start = offset;
    const blocks: Block[] = [];
    for (const token of tokens) {
      if (token.type !== "space" && token.type !== "def") blocks.push({ start, token });
      start += token.raw.length;
    }
    return { blocks, links: tokens.links };
  } finally {
    streaming = false;
  }
}

/** The first line of what will be a table, shown once its second line says so. */
function isTableHead(last: Block | undefined): boolean {
  return last?.token.type === "paragraph" && last.token.raw.length < 200 && /^\|[^\n]*(?:\n[|:\- ]*)?$/.test(last.token.raw);
}

/** The blocks of a text that only grows. */
export class IncrementalParser {
  private settled: Block[] = [];
  private settledLength = 0;
  private links: Links = {};
  private text = "";
  private isFinal = false;
  private shown: Block[] = [];

  /** The blocks of the whole text so far; settled ones are the same objects as before. */
  update(text: string): Block[] {
    return this.parse(text, false);
  }

  /** The same once nothing more comes: what was held back or left open is then text. */
  finish(text: string): Block[] {
    return this.parse(text, true);
  }

  private parse(text: string, isFinal: boolean): Block[] {
    if (text === this.text && isFinal === this.isFinal) return this.shown;
    if (!text.startsWith(this.text.slice(0, this.settledLength))) this.forget();
    this.text = text;
    this.isFinal = isFinal;
    const tail = text.slice(this.settledLength);
    if (tail.includes("\r")) {
      this.forget(); // the lexer drops returns, and offsets would lie
      this.shown = parseAll(text);
      return this.shown;
    }
    const { blocks, links } = lex(tail, this.settledLength, this.links, !isFinal);
    const isHeld = !isFinal && isTableHead(blocks.at(-1));
    this.shown = [...this.settled, ...(isHeld ? blocks.slice(0, -1) : blocks)];
    if (!isFinal) this.settle(blocks, links);
    return this.shown;
  }

  private settle(blocks: Block[], links: Links): void {
    const last = blocks.at(-1);
    if (!last || blocks.length < 2 || !this.text.slice(last.start).includes("\n")) return;
    this.settled = [...this.settled, ...blocks.slice(0, -1)];
    this.settledLength = last.start;
    this.links = links;
  }

  private forget(): void {
    this.settled = [];
    this.settledLength = 0;
    this.links = {};
  }
}
