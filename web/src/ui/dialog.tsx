// Modal dialogues on the browser's own <dialog>: focus stays inside, Escape closes.
import type { ComponentChildren, VNode } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n/index.ts";
import { Icon } from "./icon.tsx";

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
}

export function Dialog({ title, onClose, children, wide = false }: DialogProps): VNode {
  const node = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const dialog = node.current!;
    if (!dialog.open) dialog.showModal();
  }, []);
  return (
    <dialog
      ref={node}
      class={wide ? "dialog wide" : "dialog"}
      aria-label={title}
      onClose={onClose}
      onClick={(event) => event.target === node.current && node.current?.close()}
    >
      <header>
        <h2>{title}</h2>
        <button type="button" class="icon-button" aria-label={t().close} onClick={() => node.current!.close()}>
          <Icon name="cross" />
        </button>
      </header>
      <div class="dialog-body">{children}</div>
    </dialog>
  );
}

interface ConfirmProps {
  question: string;
  action: string;
  onYes: () => void;
  onClose: () => void;
}

export function Confirm({ question, action, onYes, onClose }: ConfirmProps): VNode {
  return (
    <Dialog title={action} onClose={onClose}>
      <p>{question}</p>
      <footer class="dialog-actions">
        <button type="button" class="button" onClick={onClose}>
          {t().cancel}
        </button>
        <button
          type="button"
          class="button danger"
          onClick={() => {
            onYes();
            onClose();
          }}
        >
          {action}
        </button>
      </footer>
    </Dialog>
  );
}

interface AskProps {
  title: string;
  value: string;
  onSave: (value: string) => void;
  onClose: () => void;
}

export function Ask({ title, value, onSave, onClose }: AskProps): VNode {
  const [text, setText] = useState(value);
  const save = (event: Event): void => {
    event.preventDefault();
    if (text.trim()) onSave(text.trim());
    onClose();
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={save}>
        <input class="input" aria-label={title} value={text} maxLength={200} onInput={(event) => setText(event.currentTarget.value)} autoFocus />
        <footer class="dialog-actions">
          <button type="button" class="button" onClick={onClose}>
            {t().cancel}
          </button>
          <button type="submit" class="button primary">
            {t().save}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
