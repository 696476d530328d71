// How a worker tells what happens. Taken before any program runs, so that none can put itself
// between; at most so many lines, so that a loop that prints floods no one.

const post = self.postMessage.bind(self) as (message: unknown) => void;
const MAX_LINES = 400;
let lines = 0;
let lastFrame = 0;

export function status(value: "python" | "running" | "done" | "failed"): void {
  post({ type: "status", status: value });
}

export function output(text: string): void {
  if (++lines <= MAX_LINES) post({ type: "output", text });
  else if (lines === MAX_LINES + 1) post({ type: "output", text: "…" });
}

export function fail(text: string): void {
  post({ type: "error", text });
}

/** Told at most twice a second. */
export function alive(): void {
  const now = performance.now();
  if (now - lastFrame < 500) return;
  lastFrame = now;
  post({ type: "alive" });
}
