// What the app and the preview frame say to each other, over a port that only they hold, and what
// the frame and its worker say. Whatever comes from the frame is checked: it runs untrusted code.
import type { ProgramKind } from "./programs.ts";

export const HELLO = "rorqual-preview-hello";
export const PORT = "rorqual-preview-port";

export interface RunOrder {
  type: "run";
  kind: ProgramKind;
  code: string;
  width: number;
  height: number;
  /** Where Pyodide's files lie: an absolute address that ends in a slash. */
  pyodide: string;
}

export type ToFrame = RunOrder | { type: "stop" };

export type PreviewStatus = "python" | "running" | "done" | "failed";

export type FromFrame =
  | { type: "status"; status: PreviewStatus }
  | { type: "output"; text: string }
  | { type: "error"; text: string }
  | { type: "alive" };

const STATUSES: readonly string[] = ["python", "running", "done", "failed"];
const MAX_TEXT = 4000;

/** A message of the frame if it is one, cut to a sane length; else null. */
export function readMessage(data: unknown): FromFrame | null {
  if (typeof data !== "object" || data === null) return null;
  const { type, text, status } = data as Record<string, unknown>;
  if (type === "alive") return { type };
  if (type === "status" && typeof status === "string" && STATUSES.includes(status)) {
    return { type, status: status as PreviewStatus };
  }
  if ((type === "output" || type === "error") && typeof text === "string") {
    return { type, text: text.slice(0, MAX_TEXT) };
  }
  return null;
}

/** A key or pointer event, as the worker gets it. */
export interface InputMessage {
  type: "input";
  kind: string;
  key?: string;
  code?: string;
  x?: number;
  y?: number;
  button?: number;
  buttons?: number;
}

export interface StartMessage {
  type: "start";
  canvas: OffscreenCanvas;
  order: RunOrder;
}

export type ToWorker = StartMessage | InputMessage;
