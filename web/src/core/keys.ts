// What keys mean, apart from the page, so that it can be tested.

export interface KeyPress {
  key: string;
  keyCode?: number;
  isComposing?: boolean;
  shiftKey?: boolean;
  ctrlKey?: boolean;
  metaKey?: boolean;
  altKey?: boolean;
}

/** True while an input method owns the key: the Enter that picks a candidate sends nothing. */
export function isComposing(press: KeyPress): boolean {
  return press.isComposing === true || press.keyCode === 229;
}

/** Enter sends; Shift+Enter and Alt+Enter break the line. */
export function sendsMessage(press: KeyPress): boolean {
  return press.key === "Enter" && !isComposing(press) && !press.shiftKey && !press.altKey;
}

export type Command =
  | "search" | "new" | "stop" | "composer" | "sidebar" | "copy" | "shortcuts" | "thinking";

/** The command of a key; null where it belongs to the field that has the focus. */
export function commandOf(press: KeyPress, typing: boolean): Command | null {
  if (isComposing(press) || press.altKey) return null;
  const key = press.key.toLowerCase();
  if (press.ctrlKey || press.metaKey) {
    if (key === "k") return "search";
    if (key === "b") return "sidebar";
    if (!press.shiftKey) return null;
    if (key === "o") return "new";
    if (key === "c") return "copy";
    if (key === "e") return "thinking";
    return null;
  }
  if (key === "escape") return "stop";
  if (typing) return null;
  if (key === "/") return "composer";
  if (press.key === "?") return "shortcuts";
  return null;
}
