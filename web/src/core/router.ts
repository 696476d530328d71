// Routes live behind the #, so that the server has one page to serve and none to guess.
import { computed, signal } from "@preact/signals";

export type Page =
  | "chat" | "tutor" | "compare" | "lab" | "account" | "signin" | "admin" | "status" | "about" | "examples";

const PAGES: readonly Page[] = [
  "chat", "tutor", "compare", "lab", "account", "signin", "admin", "status", "about", "examples",
];

export interface Route {
  page: Page;
  key: string | null;
}

export function parseRoute(hash: string): Route {
  const [page, key] = hash.replace(/^#?\/?/, "").split("/");
  if (page === "c" && key) return { page: "chat", key: safeDecode(key) };
  const known = PAGES.find((name) => name === page);
  return { page: known ?? "chat", key: known && key ? safeDecode(key) : null };
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

export const route = computed(() => parseRoute(hash.value));

export function hrefOf(page: Page, key?: string | null): string {
  const name = page === "chat" && key ? "c" : page;
  if (page === "chat" && !key) return "#/";
  return key ? `#/${name}/${encodeURIComponent(key)}` : `#/${name}`;
}

export function go(page: Page, key?: string | null): void {
  location.hash = hrefOf(page, key);
  hash.value = location.hash;
}
