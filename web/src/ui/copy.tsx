// Copies a text and says so for a moment.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { t } from "../i18n/index.ts";
import { Icon } from "./icon.tsx";

/** Works without TLS too, where the clipboard API is missing. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "off-screen";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

interface CopyButtonProps {
  text: string | (() => string);
  class?: string;
  label?: boolean;
}

export function CopyButton({ text, class: style = "icon-button", label = false }: CopyButtonProps): VNode {
  const [isDone, setDone] = useState(false);
  const copy = async (): Promise<void> => {
    if (!(await copyText(typeof text === "string" ? text : text()))) return;
    setDone(true);
    setTimeout(() => setDone(false), 1600);
  };
  const name = isDone ? t().copied : t().copy;
  return (
    <button type="button" class={style} title={name} aria-label={name} onClick={() => void copy()}>
      <Icon name={isDone ? "check" : "copy"} />
      {label && <span>{name}</span>}
    </button>
  );
}
