// Models that the server fetches: begun by a click, followed by asking, by whichever page is open.
// The server keeps how far it is, so a reload in the middle changes nothing.
import { effect } from "@preact/signals";
import { api } from "../core/api.ts";
import { bytes, number } from "../core/format.ts";
import { explain, loadModels, models } from "../core/session.ts";
import { chosenModel, wantedModel } from "../core/settings.ts";
import type { Model } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { announce, toast } from "../ui/toast.tsx";

const POLL_MS = 700;
let isFollowing = false;

/** Whether it is being fetched or loaded. */
export function isComing(one: Model): boolean {
  return one.fetch !== null && one.fetch.state !== "failed";
}

/** 0 to 1; null while there is nothing to count. */
export function share(one: Model): number | null {
  if (one.fetch?.state !== "fetching" || !one.fetch.received) return null;
  return Math.min(1, one.fetch.received / one.bytes);
}

/** How far it is, or why it failed, in words. */
export function progress(one: Model): string {
  const error = one.fetch?.error;
  if (error?.code === "unreachable") return t().fetchUnreachable;
  if (error?.code === "disk_full") return t().fetchDiskFull;
  if (error?.code === "changed_file") return t().fetchChanged;
  if (error?.code === "not_loaded") return t().fetchNotLoaded(error.message);
  if (error) return error.message;
  if (one.fetch?.state === "loading") return t().modelLoading;
  return t().modelFetching(`${number(100 * (share(one) ?? 0))} %`, bytes(one.bytes));
}

export async function beginFetch(one: Model): Promise<void> {
  try {
    await api.fetchModel(one.id);
    wantedModel.value = one.id;
    announce(`${one.title}: ${t().modelFetching("0 %", bytes(one.bytes))}`);
    await loadModels();
  } catch (failure) {
    toast(explain(failure), "error");
  }
}

export async function cancelFetch(one: Model): Promise<void> {
  try {
    await api.cancelFetch(one.id);
    await loadModels();
  } catch (failure) {
    toast(explain(failure), "error");
  }
}

async function follow(): Promise<void> {
  if (isFollowing) return;
  isFollowing = true;
  while (models.value.some(isComing)) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    await loadModels().catch(() => undefined); // a server that is away comes back
  }
  isFollowing = false;
}

/** The model that was asked for here is ready, or is not going to be. */
function settle(one: Model): void {
  wantedModel.value = "";
  if (!one.fetchable) {
    chosenModel.value = one.id;
    toast(t().modelReady(one.title));
  } else if (one.fetch) toast(`${one.title}: ${progress(one)}`, "error");
}

effect(() => {
  const all = models.value;
  const wanted = all.find((one) => one.id === wantedModel.peek());
  if (wanted && !isComing(wanted)) settle(wanted);
  if (all.some(isComing)) void follow();
});
