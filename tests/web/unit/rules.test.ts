// Keys, links, trees, routes of programs, proof of work, curves.
import { commandOf, sendsMessage } from "@/core/keys.ts";
import { leadingZeroBits, sha256 } from "@/core/sha256.ts";
import { pathOf } from "@/core/tree.ts";
import type { Message } from "@/core/types.ts";
import { bounds, merged, nearest, smoothed, thinned, ticks, type Point } from "@/pages/series.ts";
import { programOf, runnableAs } from "@/preview/programs.ts";
import { readMessage } from "@/preview/protocol.ts";
import { decodeEntities } from "@/render/entities.ts";
import { safeHref } from "@/render/links.ts";

test("Enter sends, but not while an input method picks a candidate, nor with Shift", () => {
  expect(sendsMessage({ key: "Enter" })).toBe(true);
  expect(sendsMessage({ key: "Enter", isComposing: true })).toBe(false);
  expect(sendsMessage({ key: "Enter", keyCode: 229 })).toBe(false);
  expect(sendsMessage({ key: "Enter", shiftKey: true })).toBe(false);
  expect(sendsMessage({ key: "Process" })).toBe(false);
});

test("letters typed into a field are no commands", () => {
  expect(commandOf({ key: "/" }, true)).toBeNull();
  expect(commandOf({ key: "/" }, false)).toBe("composer");
  expect(commandOf({ key: "K", ctrlKey: true }, true)).toBe("search");
  expect(commandOf({ key: "Escape", isComposing: true }, true)).toBeNull();
});

test.each([
  "javascript:alert(1)", " JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "data:text/html,x", "vbscript:x",
  "file:///etc/passwd", "blob:x", "//host/path", "/api/me", "#x", "\u0001javascript:x", "ftp://a/",
])("%s is no link", (href) => {
  expect(safeHref(href)).toBeNull();
});

test("http, https and mailto are links", () => {
  expect(safeHref("https://a.example/b?c=d")).toBe("https://a.example/b?c=d");
  expect(safeHref("mailto:a@b.example")).toBe("mailto:a@b.example");
});

test("entities become characters, unknown ones stay", () => {
  expect(decodeEntities("a &lt;b&gt; &#20013; &#x1F40B; &nope; & c &constructor;")).toBe("a <b> 中 🐋 &nope; & c &constructor;");
});

const message = (id: string, parent: string | null, created: string): Message => ({
  id, parent_id: parent, role: "user", content: id, reasoning: null, created, run_id: null, model: null,
  state: "complete", usage: null, error: null,
});

test("the newest branch is shown unless another is chosen", () => {
  const all = [message("a", null, "1"), message("b", "a", "2"), message("c", "a", "3"), message("d", "b", "4")];
  const ids = (chosen: [string, string][]): string[] => pathOf(all, new Map(chosen)).map((step) => step.message.id);
  expect(ids([])).toEqual(["a", "c"]);
  expect(ids([["a", "b"]])).toEqual(["a", "b", "d"]);
  expect(pathOf(all, new Map())[1]!.siblings).toEqual(["b", "c"]);
});

test("a loop in broken data ends", () => {
  const loop = [message("a", null, "1"), message("b", "a", "2"), { ...message("a", "b", "3") }];
  expect(pathOf(loop, new Map()).length).toBeLessThan(4);
});

test("SHA-256 is SHA-256, at every length around a block", async () => {
  for (const length of [0, 1, 54, 55, 56, 63, 64, 65, 119, 120, 200]) {
    const bytes = new TextEncoder().encode("q".repeat(length));
    const theirs = new DataView(await crypto.subtle.digest("SHA-256", bytes));
    expect([...sha256(bytes)]).toEqual(Array.from({ length: 8 }, (_, at) => theirs.getUint32(4 * at)));
  }
});

test("leading zero bits are counted across words", () => {
  expect(leadingZeroBits(Uint32Array.of(0x00010000, 5))).toBe(15);
  expect(leadingZeroBits(Uint32Array.of(0, 0x80000000))).toBe(32);
});

test("a page that is one canvas and its script runs as a canvas program", () => {
  const page = '<canvas id="c" width="300" height="200"></canvas><script>const a = 1;</script>';
  expect(programOf(page, "html")).toEqual({ kind: "canvas", code: "const a = 1;", width: 300, height: 200 });
  expect(programOf("<button>x</button><script>1</script>", "html").kind).toBe("html");
  expect(programOf('<script src="http://x/y.js"></script><canvas>', "html").kind).toBe("html");
  expect(programOf("print(1)", "python").kind).toBe("python");
  expect([runnableAs("bash", "ls"), runnableAs("json", "{}"), runnableAs("js", " ")]).toEqual([false, false, false]);
});

test("what a frame says is checked", () => {
  expect(readMessage({ type: "status", status: "running", more: 1 })).toEqual({ type: "status", status: "running" });
  expect(readMessage({ type: "error", text: "x".repeat(9000) })).toMatchObject({ text: "x".repeat(4000) });
  for (const bad of [null, 1, "run", {}, { type: "status", status: "evil" }, { type: "output", text: 5 }, { type: "run" }]) {
    expect(readMessage(bad)).toBeNull();
  }
});

test("thinning keeps the spike, smoothing starts unbiased, bounds and ticks are sane", () => {
  const points: Point[] = Array.from({ length: 10_000 }, (_, step) => [step, step === 4321 ? 99 : 1]);
  const few = thinned(points, 200);
  expect(few.length).toBeLessThanOrEqual(201);
  expect(few.some(([, value]) => value === 99)).toBe(true);
  expect(smoothed([[0, 4], [1, 4]], 0.9)).toEqual([[0, 4], [1, 4]]);
  expect(bounds([[[3, Number(7)]]])).toMatchObject({ x0: 3, x1: 4 });
  expect(ticks(0, 10, 5)).toEqual([0, 2, 4, 6, 8, 10]);
  expect(nearest([[0, 1], [10, 2], [20, 3]], 14)).toEqual([10, 2]);
  expect(merged({ a: [[1, 1], [2, 2]] }, { a: [[2, 9], [3, 3]], b: [[1, 0]] })).toEqual({ a: [[1, 1], [2, 9], [3, 3]], b: [[1, 0]] });
});
