// Runs a canvas program without a screen: a clock of its own, and a context that writes down what is
// drawn. Reads {token, code, seconds} from standard input, writes the token and one line of JSON.
//
// The program sees: canvas, ctx, document.getElementById/querySelector/createElement, window,
// requestAnimationFrame, setTimeout, setInterval, performance.now, Math with a seeded random.
// Of the 2D context: paths of moveTo, lineTo, rect, arc, closePath; fill, stroke, fillRect,
// strokeRect, clearRect; save, restore, translate, rotate, scale, transform, setTransform,
// resetTransform; fillStyle, strokeStyle, lineWidth, globalAlpha. Text draws nothing.
//
// `stage` is run inside the program's own realm from its source text, so that no object of this
// process is within the program's reach; a frame can be added only by drawing one.
"use strict";
const vm = require("node:vm");

const TIMEOUT_MS = 2000; // each of the first pass and the play; a worked program takes 30 ms

function stage(seconds) {
  "use strict";
  const { round, cos, sin, hypot, abs, PI } = Math;
  const toText = JSON.stringify;
  const MAX_SHAPES = 64, MAX_POINTS = 256, MAX_FRAMES = 2600, FRAME_MS = 1000 / 60;
  const DRAWS_TOO_MUCH = "draws too much", WORLD = globalThis;
  const size = { width: 400, height: 400 };
  const frames = [];
  let now = 0, shapes = [], background = null, drawn = false;

  // State of the context: a transform [a, b, c, d, e, f] and the paints, saved and restored.
  let state, saved, path, open;
  function reset() {
    state = { m: [1, 0, 0, 1, 0, 0], fillStyle: "#000000", strokeStyle: "#000000", lineWidth: 1,
      globalAlpha: 1 };
    saved = []; path = []; open = null;
  }
  reset();

  const milli = (value) => round(value * 1000) / 1000;
  function place(x, y) {
    const m = state.m;
    return [m[0] * x + m[2] * y + m[4], m[1] * x + m[3] * y + m[5]];
  }
  function multiply(a, b, c, d, e, f) {
    const m = state.m;
    state.m = [m[0] * a + m[2] * b, m[1] * a + m[3] * b, m[0] * c + m[2] * d, m[1] * c + m[3] * d,
      m[0] * e + m[2] * f + m[4], m[1] * e + m[3] * f + m[5]];
  }
  function corners(x, y, w, h) {
    return [place(x, y), place(x + w, y), place(x + w, y + h), place(x, y + h)];
  }
  function covers(quad) {
    // A convex quadrilateral covers the canvas if all four canvas corners lie on one side of
    // every edge.
    let sign = 0;
    for (let k = 0; k < 4; k++) {
      const [ax, ay] = quad[k], [bx, by] = quad[(k + 1) % 4];
      for (let corner = 0; corner < 4; corner++) {
        const px = corner & 1 ? size.width : 0, py = corner & 2 ? size.height : 0;
        const side = (bx - ax) * (py - ay) - (by - ay) * (px - ax);
        if (abs(side) < 1e-6) continue;
        if (sign === 0) sign = side;
        if (side * sign < 0 || side !== side) return false;
      }
    }
    return sign !== 0;
  }
  function wipe(colour) {
    shapes = []; background = colour; drawn = true;
  }
  function record(shape) {
    if (shapes.length >= MAX_SHAPES) throw new Error(DRAWS_TOO_MUCH);
    shapes[shapes.length] = shape; drawn = true;
  }
  function paint(kind) {
    const style = "" + (kind === "f" ? state.fillStyle : state.strokeStyle);
    return state.globalAlpha >= 0.99 ? style : "transparent";
  }
  function recordPolygon(kind, points, closed) {
    const shape = ["p", kind, paint(kind), closed || kind === "f" ? 1 : 0];
    for (let k = 0; k < points.length; k++) {
      shape[shape.length] = milli(points[k][0]); shape[shape.length] = milli(points[k][1]);
    }
    record(shape);
  }
  function rectangle(kind, quad) {
    if (kind === "f" && covers(quad)) wipe(paint("f"));
    else recordPolygon(kind, quad, true);
  }
  function finish(kind) {
    for (let k = 0; k < path.length; k++) {
      const part = path[k];
      if (part.circle) {
        const [x, y, r] = part.circle;
        record(["c", kind, paint(kind), milli(x), milli(y), milli(r)]);
      } else if (part.quad && part.points.length === 4) rectangle(kind, part.points);
      else if (part.points.length > 1) recordPolygon(kind, part.points, part.closed);
    }
  }
  function begin(point) {
    if (path.length >= MAX_SHAPES) throw new Error(DRAWS_TOO_MUCH);
    open = { points: [point], closed: false, circle: null, quad: false };
    path[path.length] = open;
  }
  function extend(point) {
    if (!open || open.circle) return begin(point);
    if (open.closed) begin(open.points[0]);
    if (open.points.length >= MAX_POINTS) throw new Error(DRAWS_TOO_MUCH);
    open.points[open.points.length] = point;
  }
  function arc(x, y, r, from, to, back) {
    if (!(r >= 0)) throw new RangeError("arc: the radius is negative or not a number");
    const sweep = back ? from - to : to - from;
    const a = state.m, scale = hypot(a[0], a[1]);
    if (sweep >= 2 * PI - 1e-3 && abs(scale - hypot(a[2], a[3])) < 1e-6) {
      const [cx, cy] = place(x, y);
      begin([cx, cy]);
      open.circle = [cx, cy, r * scale];
      return;
    }
    for (let k = 0; k <= 16; k++) {
      const t = from + (to - from) * k / 16;
      extend(place(x + r * cos(t), y + r * sin(t)));
    }
  }
  const ctx = {
    get fillStyle() { return state.fillStyle; }, set fillStyle(v) { state.fillStyle = "" + v; },
    get strokeStyle() { return state.strokeStyle; },
    set strokeStyle(v) { state.strokeStyle = "" + v; },
    get lineWidth() { return state.lineWidth; }, set lineWidth(v) { state.lineWidth = +v; },
    get globalAlpha() { return state.globalAlpha; }, set globalAlpha(v) { state.globalAlpha = +v; },
    beginPath() { path = []; open = null; },
    closePath() { if (open && !open.circle) open.closed = true; },
    moveTo(x, y) { begin(place(x, y)); },
    lineTo(x, y) { extend(place(x, y)); },
    rect(x, y, w, h) {
      begin(place(x, y)); open.points = corners(x, y, w, h); open.closed = open.quad = true;
    },
    arc, fill() { finish("f"); }, stroke() { finish("s"); },
    fillRect(x, y, w, h) { rectangle("f", corners(x, y, w, h)); },
    strokeRect(x, y, w, h) { rectangle("s", corners(x, y, w, h)); },
    clearRect(x, y, w, h) {
      // A part that is cleared cannot be told from one that is painted over: only whole wipes count.
      if (covers(corners(x, y, w, h))) wipe("");
    },
    save() {
      if (saved.length >= MAX_SHAPES) throw new Error(DRAWS_TOO_MUCH);
      const { fillStyle, strokeStyle, lineWidth, globalAlpha } = state;
      saved[saved.length] = { m: state.m, fillStyle, strokeStyle, lineWidth, globalAlpha };
    },
    restore() { if (saved.length) { state = saved[saved.length - 1]; saved.length -= 1; } },
    translate(x, y) { multiply(1, 0, 0, 1, x, y); },
    rotate(t) { multiply(cos(t), sin(t), -sin(t), cos(t), 0, 0); },
    scale(x, y) { multiply(x, 0, 0, y, 0, 0); },
    transform: multiply,
    setTransform(a, b, c, d, e, f) { state.m = [1, 0, 0, 1, 0, 0]; multiply(a, b, c, d, e, f); },
    resetTransform() { state.m = [1, 0, 0, 1, 0, 0]; },
    fillText() {}, strokeText() {}, measureText() { return { width: 0 }; },
  };
  const resize = (key) => (value) => { size[key] = +value; reset(); wipe(""); };
  const setWidth = resize("width"), setHeight = resize("height");
  const canvas = {
    get width() { return size.width; }, set width(v) { setWidth(v); },
    get height() { return size.height; }, set height(v) { setHeight(v); },
    get clientWidth() { return size.width; }, get clientHeight() { return size.height; },
    style: {}, addEventListener() {}, getContext() { return ctx; },
  };
  ctx.canvas = canvas;

  // Time: callbacks wait in a list; the earliest runs, ties in the order they came.
  let waiting = [], nextId = 1;
  function schedule(callback, due, every) {
    if (waiting.length >= MAX_SHAPES) throw new Error("schedules too much");
    waiting[waiting.length] = { id: nextId, callback, due, every };
    return nextId++;
  }
  function cancel(id) {
    const kept = [];
    for (let k = 0; k < waiting.length; k++) {
      if (waiting[k].id !== id) kept[kept.length] = waiting[k];
    }
    waiting = kept;
  }
  const delay = (ms) => (ms >= 1 ? +ms : 1);
  let seed = 12345;
  Math.random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  Date.now = () => now;
  const body = { style: {}, appendChild() {}, append() {} };
  const world = {
    canvas, ctx, performance: { now: () => now }, innerWidth: 400, innerHeight: 400,
    document: {
      body, documentElement: body, addEventListener() {},
      getElementById: () => canvas, querySelector: () => canvas, createElement: () => canvas,
    },
    window: WORLD, self: WORLD, addEventListener() {},
    requestAnimationFrame: (f) => schedule(f, (round(now / FRAME_MS) + 1) * FRAME_MS, 0),
    setTimeout: (f, ms) => schedule(f, now + delay(ms), 0),
    setInterval: (f, ms) => schedule(f, now + delay(ms), delay(ms)),
    cancelAnimationFrame: cancel, clearTimeout: cancel, clearInterval: cancel,
    console: { log() {}, info() {}, warn() {}, error() {}, debug() {} },
  };
  for (const name in world) {
    Object.defineProperty(WORLD, name, {
      value: world[name], writable: true, configurable: true, enumerable: true,
    });
  }
  function keepFrame() {
    if (!drawn) return;
    if (frames.length >= MAX_FRAMES) throw new Error("too many frames");
    frames[frames.length] = [milli(now / 1000), background, shapes];
    shapes = []; background = null; drawn = false;
  }
  function play() {
    // What the first pass drew is on the screen together with the first callback's frame only if
    // both fall on one instant; so it is a frame of its own.
    keepFrame();
    while (waiting.length) {
      let first = waiting[0];
      for (let k = 1; k < waiting.length; k++) if (waiting[k].due < first.due) first = waiting[k];
      if (first.due > seconds * 1000 + 1e-6) return;
      now = first.due;
      if (first.every) first.due += first.every;
      else cancel(first.id);
      first.callback(now);
      keepFrame();
    }
  }
  const report = (status, message) =>
    toText({ status, message, size: [size.width, size.height], frames });
  return { play, report };
}

function main() {
  const { token, code, seconds } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
  const context = vm.createContext(Object.create(null));
  const { play, report } = vm.runInContext(`(${stage})(${Number(seconds)})`, context);
  let status = "syntax", message = "";
  try {
    const script = new vm.Script(code, { filename: "program.js" });
    status = "error";
    script.runInContext(context, { timeout: TIMEOUT_MS });
    // Only what is called inside the realm is under the timeout, so the clockwork is lent to it
    // under a name that the program, which has had its turn, cannot have known.
    context[token] = play;
    vm.runInContext(`{ const f = globalThis["${token}"]; delete globalThis["${token}"]; f(); }`,
      context, { timeout: TIMEOUT_MS });
    status = "ok";
  } catch (error) {
    try {
      if (error.code === "ERR_SCRIPT_EXECUTION_TIMEOUT") status = "timeout";
      message = String(error.message).slice(0, 200);
    } catch { message = "error"; }
  }
  process.stdout.write("\n" + token + report(status, message) + "\n");
}

main();
