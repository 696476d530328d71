// Two typed dictionaries: a key that one of them lacks does not compile.
import { computed, effect } from "@preact/signals";
import { keepLanguage } from "../core/settings.ts";
import { en } from "./en.ts";
import { zh } from "./zh.ts";

type Widen<T> = T extends (...args: infer A) => string ? (...args: A) => string : T extends string ? string : T;
export type Dictionary = { [K in keyof typeof en]: Widen<(typeof en)[K]> };
export type Language = "en" | "zh";

export const language = computed<Language>(() => {
  if (keepLanguage.value !== "auto") return keepLanguage.value;
  return (navigator.languages[0] ?? "en").toLowerCase().startsWith("zh") ? "zh" : "en";
});

const words = computed<Dictionary>(() => (language.value === "zh" ? zh : en));

/** The words of the chosen language; a component that reads it follows the choice. */
export function t(): Dictionary {
  return words.value;
}

effect(() => {
  document.documentElement.lang = language.value === "zh" ? "zh-CN" : "en";
});
