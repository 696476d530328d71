// The incremental parser against the whole parse.
import { IncrementalParser, parseAll } from "@/render/markdown.ts";

const CORPUS = [
  "# Title\n\nA paragraph with **bold** text.\n\n- one\n- two\n\n  more of two\n\n- three\n\nEnd.\n",
  "1. first\n\n2. second\n\n2\n\nnot a list\n",
  "Text\n```python\nprint(1)\n\nprint(2)\n```\nafter\n\n> quote\n> more\n\nlast",
  "| a | b |\n|---|---|\n| 1 | $x$ |\n\nSetext\n===\n\nx\n---\n",
  "\\[\na = b\n\\]\n\nThen $$c$$ and \\(d\\).\n\n$$\ne\n$$\n",
  "See [one][1] and [two].\n\n[1]: http://a.example/\n[two]: http://b.example/\n\nAgain [one][1].\n",
  "<div>\nraw\n</div>\n\npara <b>x</b>\n\n***\n\n* * *\n\n- [ ] todo\n- [x] done\n",
  "思考：先看 $x$。\n\n然后——得到 **答案**。\n",
];

const raws = (blocks: { token: { raw: string } }[]): string[] => blocks.map((block) => block.token.raw);

test.each(CORPUS)("text that grows letter by letter ends as the whole parse: %#", (text) => {
  for (const step of [1, 3, 7]) {
    const parser = new IncrementalParser();
    for (let end = 0; end <= text.length; end += step) parser.update(text.slice(0, end));
    const grown = parser.finish(text);
    const whole = parseAll(text);
    expect(raws(grown)).toEqual(raws(whole));
    expect(grown.map((block) => block.token.type)).toEqual(whole.map((block) => block.token.type));
  }
});

test("blocks cover the text without a gap", () => {
  for (const text of CORPUS) {
    for (const block of parseAll(text)) expect(text.startsWith(block.token.raw, block.start)).toBe(true);
  }
});

test("a settled block is the same object at the next parse, and only the last is parsed again", () => {
  const parser = new IncrementalParser();
  const before = parser.update("one\n\ntwo\n\nthree\n");
  const after = parser.update("one\n\ntwo\n\nthree\nmore\n\nfour\n");
  expect(after[0]).toBe(before[0]);
  expect(after[1]).toBe(before[1]);
  expect(after).toHaveLength(4);
});

test("a text that is not a continuation is parsed anew", () => {
  const parser = new IncrementalParser();
  parser.update("one\n\ntwo\n\nthree\n");
  expect(raws(parser.update("other"))).toEqual(["other"]);
});

test("an open display hides behind one block while it streams, and is text if it never closes", () => {
  const parser = new IncrementalParser();
  const [open] = parser.update("\\[\na = b\n= c");
  expect(open!.token).toMatchObject({ type: "math", closed: false });
  expect(parser.finish("\\[\na = b\n= c")[0]!.token.type).not.toBe("math");
});

test("the first line of a table is held back until the second", () => {
  const parser = new IncrementalParser();
  expect(parser.update("| a | b |\n|--")).toEqual([]);
  expect(parser.finish("| a | b |\n|--")[0]!.token.type).toBe("paragraph");
  expect(parser.update("| a | b |\n|---|---|\n")[0]!.token.type).toBe("table");
});

test("in a long thought a step parses no more than its last blocks", () => {
  const parser = new IncrementalParser();
  const paragraph = "Suppose $a = 1$. Then **b** follows, and so on and on.\n\n";
  let text = paragraph.repeat(2000);
  let before = parser.update(text);
  for (let step = 0; step < 200; step++) {
    const after = parser.update((text += "word "));
    const settled = before.slice(0, -2);
    expect(settled.findIndex((block, index) => block !== after[index])).toBe(-1);
    expect(after.length - settled.length).toBeLessThanOrEqual(3);
    before = after;
  }
});
