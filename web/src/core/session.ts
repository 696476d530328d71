// Who is here and what is served.
import { computed, signal } from "@preact/signals";
import { t } from "../i18n/index.ts";
import { api, ApiError } from "./api.ts";
import { seconds } from "./format.ts";
import { chosenModel } from "./settings.ts";
import type { Me, Model } from "./types.ts";

export const me = signal<Me | null>(null);
export const models = signal<Model[]>([]);
export const isOffline = signal(false);

export const mayChat = computed(() => me.value !== null && (me.value.mode === "local" || me.value.user !== null));
export const isAdmin = computed(() => me.value?.mode === "local" || me.value?.user?.role === "admin");

/** The model chosen here if it is still served, else the server's own choice. */
export const model = computed<Model | null>(() => {
  const all = models.value;
  return (
    all.find((one) => one.id === chosenModel.value && !one.fetchable) ??
    all.find((one) => one.default) ??
    all.find((one) => !one.fetchable) ??
    null
  );
});

export async function start(): Promise<void> {
  try {
    me.value = await api.me();
    isOffline.value = false;
    if (mayChat.value) await loadModels();
  } catch {
    isOffline.value = true;
    setTimeout(() => void start(), 3000);
  }
}

export async function loadModels(): Promise<void> {
  models.value = (await api.models()).models;
}

/** What to tell a person about a failure. */
export function explain(error: unknown): string {
  if (!(error instanceof ApiError)) return error instanceof Error ? error.message : t().failed;
  if (error.status === 0) return t().unreachable;
  const isBusy = error.status === 503 || error.status === 429;
  return isBusy && error.retryAfterSeconds !== null ? t().serverBusy(seconds(error.retryAfterSeconds)) : error.message;
}
