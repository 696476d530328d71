// What is mathematics and what is money.
import { parseAll } from "@/render/markdown.ts";
import { mathAt } from "@/render/math.ts";

interface Found {
  tex: string;
  display: boolean;
}

function formulas(text: string): Found[] {
  const found: Found[] = [];
  const visit = (token: unknown): void => {
    if (typeof token !== "object" || token === null) return;
    const { type, tex, display } = token as { type?: string; tex?: string; display?: boolean };
    if (type === "math") found.push({ tex: tex!, display: display! });
    else for (const value of Object.values(token)) if (typeof value === "object") visit(value);
  };
  for (const block of parseAll(text)) visit(block.token);
  return found;
}

test.each([
  ["\\(a + b\\)", "a + b", false],
  ["so \\(x_1\\) and on", "x_1", false],
  ["\\[ x = 1 \\]", "x = 1", true],
  ["$$\nx = 1\n$$", "x = 1", true],
  ["inline $$x$$ display", "x", true],
  ["it is $x^2$.", "x^2", false],
  ["$\\$5$", "\\$5", false],
  ["- item \\(a\\)", "a", false],
  ["**bold $a_1$ text**", "a_1", false],
  ["| $a$ |\n|---|\n| b |", "a", false],
])("%s is the formula %s", (text, tex, display) => {
  expect(formulas(text)).toEqual([{ tex, display }]);
});

test.each([
  "It costs $5 and $10.",
  "from $20,000 to $30,000",
  "a $ b $ c",
  "$ x$",
  "$x $",
  "$x$5",
  "\\$x$ is escaped",
  "`$x$` and `\\(y\\)`",
  "```\n$$x$$\n```",
  "$a\n\nb$",
  "$$ never closed",
  "\\( never closed",
  "$$$$",
])("%s holds no formula", (text) => {
  expect(formulas(text)).toEqual([]);
});

test("emphasis neither begins nor ends inside a formula", () => {
  expect(formulas("2*3 and $x*y$ and 4*5").map((one) => one.tex)).toEqual(["x*y"]);
  expect(formulas("_a $b_c$ d_").map((one) => one.tex)).toEqual(["b_c"]);
});

test("several formulas of a paragraph are all found, in order", () => {
  expect(formulas("\\(a\\), $b$ and $$c$$").map((one) => one.tex)).toEqual(["a", "b", "c"]);
});

test("a formula has a longest length", () => {
  expect(mathAt(`$${"x".repeat(20_000)}$`)).toBeNull();
});

test("a bare box is a formula, with words set as text", () => {
  expect(mathAt("\\boxed{4} is it")).toEqual({ raw: "\\boxed{4}", tex: "\\boxed{4}", display: false });
  expect(mathAt("\\boxed{\\frac{1}{2}}")?.tex).toBe("\\boxed{\\frac{1}{2}}");
  expect(mathAt("\\boxed{未知}")?.tex).toBe("\\boxed{\\text{未知}}");
  expect(mathAt("\\boxed{98, 54, 6}")?.tex).toBe("\\boxed{98, 54, 6}");
  expect(mathAt("\\boxed{4")).toBeNull();
  expect(mathAt("\\boxed{}")).toBeNull();
});
