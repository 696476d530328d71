// Runs Python in a worker: Pyodide, and a small pygame on the canvas. A blocking loop works, since
// `Clock.tick` hands the thread back through JavaScript's promise integration.
import type { InputMessage, StartMessage, ToWorker } from "./protocol.ts";
import geometrySource from "./pygame_geometry.py?raw";
import pygameSource from "./pygame_subset.py?raw";
import { alive, fail, output, status } from "./report.ts";

interface Pyodide {
  setStdout(options: { batched: (text: string) => void }): void;
  setStderr(options: { batched: (text: string) => void }): void;
  registerJsModule(name: string, module: object): void;
  runPythonAsync(code: string, options?: { filename?: string }): Promise<unknown>;
  FS: { writeFile(path: string, text: string): void };
}

const inputs: InputMessage[] = [];
const nextFrame = (globalThis as unknown as { requestAnimationFrame(call: () => void): number }).requestAnimationFrame.bind(globalThis);
const MAX_INPUTS = 256;
const EARLY_MS = 4; // a frame that comes so little early is the one that was meant

function wait(milliseconds: number): Promise<void> {
  const due = performance.now() + milliseconds;
  return new Promise((resolve) => {
    const look = (): void => {
      alive();
      if (performance.now() >= due - EARLY_MS) resolve();
      else nextFrame(look);
    };
    nextFrame(look);
  });
}

/** What pygame_subset.py imports as `_stage`. */
function makeStage(canvas: OffscreenCanvas): object {
  return {
    screen: canvas,
    context: (target: OffscreenCanvas) => target.getContext("2d"),
    new_canvas: (width: number, height: number) => new OffscreenCanvas(Math.max(1, width), Math.max(1, height)),
    wait,
    now: () => performance.now(),
    take_inputs: () => JSON.stringify(inputs.splice(0)),
    polygon: (context: OffscreenCanvasRenderingContext2D, numbers: string, closed: boolean) => {
      const points = numbers.split(" ").map(Number);
      context.beginPath();
      for (let at = 0; at + 1 < points.length; at += 2) context.lineTo(points[at]!, points[at + 1]!);
      if (closed) context.closePath();
    },
  };
}

async function start({ canvas, order }: StartMessage): Promise<void> {
  status("python");
  const entry = `${order.pyodide}pyodide.mjs`;
  const { loadPyodide } = (await import(/* @vite-ignore */ entry)) as {
    loadPyodide(options: { indexURL: string }): Promise<Pyodide>;
  };
  const python = await loadPyodide({ indexURL: order.pyodide });
  python.setStdout({ batched: output });
  python.setStderr({ batched: output });
  python.registerJsModule("_stage", makeStage(canvas));
  python.FS.writeFile("pygame_geometry.py", geometrySource);
  python.FS.writeFile("pygame.py", pygameSource);
  status("running");
  try {
    await python.runPythonAsync(order.code, { filename: "program.py" });
    status("done");
  } catch (error) {
    report(error);
  }
}

/** The traceback from the program on, without the frames of the runtime. */
function report(error: unknown): void {
  const text = error instanceof Error ? error.message.trim() : String(error);
  if (/^SystemExit\b/m.test(text.split("\n").at(-1) ?? "")) {
    status("done");
    return;
  }
  const lines = text.split("\n");
  const first = lines.findIndex((line) => line.includes('"program.py"'));
  fail(first < 0 ? lines.slice(-3).join("\n") : lines.slice(first).join("\n"));
}

function onMessage(event: MessageEvent<ToWorker>): void {
  const { data } = event;
  if (data.type === "input") {
    if (inputs.length < MAX_INPUTS) inputs.push(data);
  } else if (data.type === "start") {
    start(data).catch((error: unknown) => fail(error instanceof Error ? error.message : String(error)));
  }
}

self.addEventListener("message", onMessage as (event: Event) => void);
