// The model picker in the header: what is served, and what can be fetched.
import type { VNode } from "preact";
import { bytes, short } from "../core/format.ts";
import { model, models } from "../core/session.ts";
import { chosenModel } from "../core/settings.ts";
import type { Model } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { Icon } from "../ui/icon.tsx";
import { Menu, type MenuItem } from "../ui/menu.tsx";
import { beginFetch, cancelFetch, isComing, progress, share } from "./fetching.ts";

export function describe(one: Model): string {
  const place = one.stored ? t().modelStored : t().modelFetchable(bytes(one.bytes));
  const state = one.loaded ? t().modelLoaded : one.fetchable ? place : t().modelInstalled;
  const parts = [state, t().modelContext(short(one.context_length))];
  if (one.thinking) parts.push(t().modelThinks);
  return parts.join(" · ");
}

/** One line for what it is or how far, and one for what can be done about that. */
function fetchable(one: Model): MenuItem[] {
  const again = { keepOpen: true, onPick: () => void beginFetch(one) };
  if (one.fetch === null) return [{ label: one.title, hint: describe(one), icon: "download", ...again }];
  const line = { label: one.title, hint: progress(one), disabled: true };
  if (!isComing(one)) return [{ ...line, icon: "alert" }, { label: t().retryFetch(one.title), icon: "again", ...again }];
  const cancel = { keepOpen: true, onPick: () => void cancelFetch(one) };
  return [{ ...line, icon: "download", progress: share(one) }, { label: t().cancelFetch(one.title), icon: "cross", ...cancel }];
}

export function ModelPicker(): VNode {
  const served = model.value;
  const items = models.value.flatMap((one): MenuItem[] =>
    one.fetchable
      ? fetchable(one)
      : [{ label: one.title, hint: describe(one), checked: one.id === served?.id, onPick: () => (chosenModel.value = one.id) }],
  );
  const coming = models.value.find(isComing);
  const button = (
    <>
      <span class="picker-name">{served?.title ?? t().noModels}</span>
      <Icon name="down" />
    </>
  );
  return (
    <>
      <Menu label={`${t().chooseModel}: ${served?.title ?? t().noModels}`} button={button} buttonClass="picker" items={items} side="left" />
      {coming && <progress class="picker-progress" aria-label={`${coming.title}: ${progress(coming)}`} value={share(coming) ?? undefined} />}
    </>
  );
}
