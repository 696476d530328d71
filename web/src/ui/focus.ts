// Moves the focus before the next key: a fast typist loses none.

/** Focuses a field that the change under way shows. The page is drawn anew in a microtask that this
 * change has queued; ours comes after it, and before any further event. */
export function focusOn(selector: string): void {
  queueMicrotask(() => document.querySelector<HTMLElement>(selector)?.focus({ preventScroll: true }));
}
