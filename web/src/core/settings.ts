// What the reader chose, kept in this browser. Nothing secret is ever kept here.
import { effect, signal, type Signal } from "@preact/signals";
import type { Effort } from "./types.ts";

export type Theme = "system" | "light" | "dark";

function kept<T>(name: string, start: T, isValid: (value: unknown) => value is T): Signal<T> {
  const key = `rorqual.${name}`;
  let value = start;
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(key) ?? "null");
    if (isValid(stored)) value = stored;
  } catch {
    // No storage, or not ours: the start value holds.
  }
  const state = signal(value);
  effect(() => {
    const text = JSON.stringify(state.value);
    try {
      localStorage.setItem(key, text);
    } catch {
      // Private mode: the choice lasts as long as the page.
    }
  });
  return state;
}

const oneOf =
  <T>(...values: T[]) =>
  (value: unknown): value is T =>
    values.includes(value as T);
const isText = (value: unknown): value is string => typeof value === "string";
const isFlag = (value: unknown): value is boolean => typeof value === "boolean";

export const theme = kept<Theme>("theme", "system", oneOf<Theme>("system", "light", "dark"));
export const chosenModel = kept("model", "", isText);
/** Chosen once the server has it: it is being fetched. */
export const wantedModel = kept("wanted", "", isText);
export const thinking = kept("thinking", true, isFlag);
export const effort = kept<Effort>("effort", "medium", oneOf<Effort>("low", "medium", "high"));
export const sidebarOpen = kept("sidebar", true, isFlag);
export const keepLanguage = kept<"en" | "zh" | "auto">("language", "auto", oneOf<"en" | "zh" | "auto">("en", "zh", "auto"));

effect(() => {
  if (theme.value === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme.value;
});
