// Where a message is written. Enter sends, unless an input method owns it.
import { signal } from "@preact/signals";
import type { VNode } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { isComposing, sendsMessage } from "../core/keys.ts";
import { mayChat, model } from "../core/session.ts";
import { effort, thinking } from "../core/settings.ts";
import type { Effort } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { Icon } from "../ui/icon.tsx";
import { Segmented } from "../ui/segmented.tsx";
import { activeRun, draft, opening, path, send, stop } from "./store.ts";

const isSending = signal(false);

async function submit(): Promise<void> {
  const text = draft.value;
  if (!text.trim() || isSending.value || activeRun.value) return;
  isSending.value = true;
  await opening;
  const parent = path.value.at(-1)?.message.id ?? null;
  const done = await send(text, parent);
  if (done && draft.value.startsWith(text)) draft.value = draft.value.slice(text.length); // what came meanwhile stays
  isSending.value = false;
}

/** Fills the field and sends: for suggestions and "ask to fix". */
export function submitText(text: string): void {
  draft.value = text;
  void submit();
}

export function Composer(): VNode {
  const field = useRef<HTMLTextAreaElement>(null);
  const run = activeRun.value;
  useLayoutEffect(() => {
    const area = field.current!;
    area.style.height = "0px";
    area.style.height = `${Math.min(area.scrollHeight, Math.round(innerHeight * 0.4))}px`;
  }, [draft.value]);
  useLayoutEffect(() => {
    // On a phone the keyboard would jump up.
    if (matchMedia("(pointer: fine)").matches) field.current!.focus({ preventScroll: true });
  }, []);
  const onKeyDown = (event: KeyboardEvent): void => {
    if (sendsMessage(event)) {
      event.preventDefault();
      void submit();
    } else if (event.key === "ArrowUp" && draft.value === "" && !isComposing(event)) {
      const edits = document.querySelectorAll<HTMLButtonElement>(".message.user .edit-button");
      edits[edits.length - 1]?.click();
    }
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <textarea
        ref={field}
        rows={1}
        value={draft.value}
        placeholder={t().messagePlaceholder}
        aria-label={t().messagePlaceholder}
        enterkeyhint="send"
        onInput={(event) => (draft.value = event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      <div class="composer-row">
        <ThinkingChoice />
        <span class="spacer" />
        {run ? (
          <button type="button" class="send-button stop" aria-label={t().stop} title={run.isStopping.value ? t().stopping : t().stop} disabled={run.isStopping.value} onClick={() => void stop()}>
            <Icon name="stop" />
          </button>
        ) : (
          <button type="submit" class="send-button" aria-label={t().send} title={t().send} disabled={!draft.value.trim() || isSending.value || !mayChat.value}>
            <Icon name="send" />
          </button>
        )}
      </div>
    </form>
  );
}

function ThinkingChoice(): VNode | null {
  if (!model.value?.thinking) return null;
  const levels: { value: Effort; label: string }[] = [
    { value: "low", label: t().effortLow },
    { value: "medium", label: t().effortMedium },
    { value: "high", label: t().effortHigh },
  ];
  return (
    <>
      <button type="button" class={thinking.value ? "chip on" : "chip"} role="switch" aria-checked={thinking.value} title={t().thinkingSwitchHint} onClick={() => (thinking.value = !thinking.value)}>
        <Icon name="bulb" />
        {t().thinkingSwitch}
      </button>
      {thinking.value && <Segmented label={t().effort} value={effort.value} options={levels} onChange={(value) => (effort.value = value)} />}
    </>
  );
}
