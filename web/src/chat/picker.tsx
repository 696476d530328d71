// The model picker in the header.
import type { VNode } from "preact";
import { bytes, short } from "../core/format.ts";
import { model, models } from "../core/session.ts";
import { chosenModel } from "../core/settings.ts";
import type { Model } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { Icon } from "../ui/icon.tsx";
import { Menu } from "../ui/menu.tsx";

export function describe(one: Model): string {
  const state = one.loaded ? t().modelLoaded : one.fetchable ? t().modelFetchable(bytes(one.bytes)) : t().modelInstalled;
  const parts = [state, t().modelContext(short(one.context_length))];
  if (one.thinking) parts.push(t().modelThinks);
  return parts.join(" · ");
}

export function ModelPicker(): VNode {
  const served = model.value;
  const items = models.value.map((one) => ({
    label: one.title,
    hint: describe(one),
    checked: one.id === served?.id,
    onPick: () => (chosenModel.value = one.id),
  }));
  const button = (
    <>
      <span class="picker-name">{served?.title ?? t().noModels}</span>
      <Icon name="down" />
    </>
  );
  return <Menu label={`${t().chooseModel}: ${served?.title ?? t().noModels}`} button={button} buttonClass="picker" items={items} side="left" />;
}
