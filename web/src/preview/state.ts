// Which program is shown beside the conversation.
import { signal } from "@preact/signals";
import { programOf, type Program } from "./programs.ts";

export interface Shown {
  program: Program;
  /** Grows with every click on "run", so that the same program starts anew. */
  turn: number;
}

export const shown = signal<Shown | null>(null);
let turn = 0;

export function showPreview(code: string, language: string): void {
  shown.value = { program: programOf(code, language), turn: ++turn };
}
