// Short notices at the edge of the page, and the polite region that a screen reader follows.
import { signal } from "@preact/signals";
import type { VNode } from "preact";

interface Toast {
  id: number;
  text: string;
  kind: "info" | "error";
}

const toasts = signal<Toast[]>([]);
const spoken = signal("");
let count = 0;

export function toast(text: string, kind: Toast["kind"] = "info"): void {
  const id = ++count;
  toasts.value = [...toasts.value.slice(-2), { id, text, kind }];
  setTimeout(() => (toasts.value = toasts.value.filter((one) => one.id !== id)), kind === "error" ? 7000 : 3500);
}

/** Said by a screen reader, not shown. */
export function announce(text: string): void {
  spoken.value = text;
}

export function Toasts(): VNode {
  return (
    <>
      <div class="toasts" role="alert">
        {toasts.value.map((one) => (
          <div key={one.id} class={`toast ${one.kind}`}>
            {one.text}
          </div>
        ))}
      </div>
      <div class="sr-only" role="status" aria-live="polite">
        {spoken.value}
      </div>
    </>
  );
}
