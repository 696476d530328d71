// Runs a canvas program in a classic worker. It finds `canvas`, `ctx`, and as much of `document`
// and `window` as a drawing needs; there is no real document behind them.
import type { InputMessage, StartMessage, ToWorker } from "./protocol.ts";
import { alive, fail, output, status } from "./report.ts";

type Anything = Record<string, unknown>;

const world = globalThis as unknown as Anything & {
  importScripts(url: string): void;
  requestAnimationFrame(callback: FrameRequestCallback): number;
};
const nextFrame = world.requestAnimationFrame.bind(globalThis);
let screen: OffscreenCanvas;
let page: EventTarget;

function show(value: unknown): string {
  if (typeof value === "string") return value;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

/** The message with the line in the program, not in ours. */
function explain(error: unknown): string {
  if (!(error instanceof Error)) return show(error);
  const line = /blob:[^\s)]*?:(\d+):\d+/.exec(error.stack ?? "")?.[1];
  return `${error.name}: ${error.message}${line ? ` (line ${line})` : ""}`;
}

function define(name: string, get: () => unknown): void {
  Object.defineProperty(globalThis, name, {
    configurable: true,
    get,
    set: (value: unknown) => Object.defineProperty(globalThis, name, { configurable: true, writable: true, value }),
  });
}

function makeElement(): Anything {
  const element = new EventTarget() as unknown as Anything;
  const nothing = (): void => undefined;
  Object.assign(element, {
    style: {}, dataset: {}, classList: { add: nothing, remove: nothing, toggle: nothing },
    appendChild: (child: unknown) => child, append: nothing, prepend: nothing, remove: nothing, removeChild: nothing,
    setAttribute: nothing, focus: nothing, children: [], innerHTML: "", textContent: "",
  });
  return element;
}

function dressCanvas(canvas: OffscreenCanvas): OffscreenCanvas {
  const nothing = (): void => undefined;
  Object.assign(canvas, {
    style: {}, id: "canvas", tagName: "CANVAS", focus: nothing, setAttribute: nothing, parentElement: null, parentNode: null,
    getBoundingClientRect: () => ({ left: 0, top: 0, x: 0, y: 0, right: canvas.width, bottom: canvas.height, width: canvas.width, height: canvas.height }),
  });
  for (const name of ["clientWidth", "offsetWidth"]) Object.defineProperty(canvas, name, { get: () => canvas.width });
  for (const name of ["clientHeight", "offsetHeight"]) Object.defineProperty(canvas, name, { get: () => canvas.height });
  return canvas;
}

function makeDocument(canvas: OffscreenCanvas, appendsCanvas: boolean): EventTarget {
  const body = Object.assign(makeElement(), { clientWidth: canvas.width, clientHeight: canvas.height });
  let isTaken = !appendsCanvas;
  const createElement = (tag: unknown): unknown => {
    if (String(tag).toLowerCase() !== "canvas") return makeElement();
    if (isTaken) return dressCanvas(new OffscreenCanvas(300, 150));
    isTaken = true;
    return canvas;
  };
  const find = (): OffscreenCanvas => canvas;
  return Object.assign(new EventTarget(), {
    body, documentElement: body, head: makeElement(), title: "", readyState: "complete", hidden: false,
    visibilityState: "visible", getElementById: find, querySelector: find, querySelectorAll: () => [canvas],
    getElementsByTagName: () => [canvas], createElement,
  });
}

function prepare({ canvas, order }: StartMessage): void {
  screen = dressCanvas(canvas);
  page = makeDocument(canvas, /\.append(?:Child)?\s*\(/.test(order.code));
  define("canvas", () => canvas);
  define("ctx", () => canvas.getContext("2d"));
  define("document", () => page);
  define("window", () => globalThis);
  define("innerWidth", () => order.width);
  define("innerHeight", () => order.height);
  define("devicePixelRatio", () => 1);
  define("alert", () => (text: unknown) => output(show(text)));
  define("requestAnimationFrame", () => (callback: FrameRequestCallback) =>
    nextFrame((time) => {
      alive();
      callback(time);
    }),
  );
  const log = (...values: unknown[]): void => output(values.map(show).join(" "));
  Object.assign(console, { log, info: log, warn: log, error: log, debug: log });
}

function start(message: StartMessage): void {
  prepare(message);
  self.onerror = (text, _source, line) => {
    fail(`${String(text).replace(/^Uncaught /, "")}${line ? ` (line ${line})` : ""}`);
    return true;
  };
  self.addEventListener("unhandledrejection", (event) => fail(explain((event as PromiseRejectionEvent).reason)));
  status("running");
  try {
    world.importScripts(URL.createObjectURL(new Blob([message.order.code], { type: "text/javascript" })));
    dispatch(page, "DOMContentLoaded", {});
    dispatch(globalThis as unknown as EventTarget, "load", {});
  } catch (error) {
    fail(explain(error));
  }
}

function dispatch(target: EventTarget, kind: string, fields: object): void {
  const event = Object.assign(new Event(kind, { bubbles: true, cancelable: true }), fields);
  const handler = (target as unknown as Anything)[`on${kind}`];
  if (target !== (globalThis as unknown as EventTarget) || kind !== "load") target.dispatchEvent(event);
  else self.dispatchEvent(event);
  // A worker has no onkeydown or onload of its own: a program that sets one expects it called.
  if (typeof handler === "function") (handler as (event: Event) => void).call(target, event);
}

function onInput({ kind, key, code, x, y, button, buttons }: InputMessage): void {
  const place = { clientX: x, clientY: y, offsetX: x, offsetY: y, pageX: x, pageY: y, x, y, button, buttons };
  const fields = key === undefined ? place : { key, code };
  for (const target of [screen, page, globalThis as unknown as EventTarget]) dispatch(target, kind, fields);
}

function onMessage(event: MessageEvent<ToWorker>): void {
  if (event.data.type === "start") start(event.data);
  else if (event.data.type === "input") onInput(event.data);
}

self.addEventListener("message", onMessage as (event: Event) => void);
