// The page in the sandboxed frame. On its main thread runs only this; programs run in a worker,
// which has no document, no WebRTC and can be ended at any moment, an endless loop included.
import { canvasWorker, pythonWorker } from "virtual:preview-workers";
import { HELLO, PORT, readMessage, type InputMessage, type RunOrder, type ToFrame } from "./protocol.ts";

let worker: Worker | null = null;
let port: MessagePort | null = null;

function stop(): void {
  worker?.terminate();
  worker = null;
}

function newCanvas(order: RunOrder): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = order.width;
  canvas.height = order.height;
  canvas.tabIndex = 0;
  document.body.replaceChildren(canvas);
  return canvas;
}

function run(order: RunOrder): void {
  stop();
  if (order.kind === "html") {
    document.open();
    document.write(order.code);
    document.close();
    port?.postMessage({ type: "status", status: "running" });
    return;
  }
  const source = order.kind === "python" ? pythonWorker : canvasWorker;
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const mine = (worker = new Worker(address));
  mine.onmessage = ({ data }) => {
    const message = readMessage(data);
    if (message && worker === mine) port?.postMessage(message);
  };
  mine.onerror = (event) => {
    event.preventDefault();
    if (worker === mine) port?.postMessage({ type: "error", text: event.message || "The program could not be started." });
  };
  const canvas = newCanvas(order);
  const offscreen = canvas.transferControlToOffscreen();
  listen(canvas, mine);
  mine.postMessage({ type: "start", canvas: offscreen, order }, [offscreen]);
}

function listen(canvas: HTMLCanvasElement, target: Worker): void {
  const send = (message: InputMessage): void => target.postMessage(message);
  for (const kind of ["keydown", "keyup"] as const) {
    canvas.addEventListener(kind, (event) => {
      if (event.key !== "Tab") event.preventDefault();
      if (!event.repeat) send({ type: "input", kind, key: event.key, code: event.code });
    });
  }
  for (const kind of ["mousedown", "mouseup", "mousemove", "click"] as const) {
    canvas.addEventListener(kind, (event) => {
      const box = canvas.getBoundingClientRect();
      const x = ((event.clientX - box.left) * canvas.width) / box.width;
      const y = ((event.clientY - box.top) * canvas.height) / box.height;
      send({ type: "input", kind, x, y, button: event.button, buttons: event.buttons });
      if (kind === "mousedown") canvas.focus();
    });
  }
}

function onPort(event: MessageEvent<ToFrame>): void {
  if (event.data.type === "run") run(event.data);
  else stop();
}

addEventListener("message", function onHello(event: MessageEvent) {
  if (event.source !== parent || event.data !== PORT || !event.ports[0]) return;
  removeEventListener("message", onHello);
  port = event.ports[0];
  port.onmessage = onPort;
});
parent.postMessage(HELLO, "*");
