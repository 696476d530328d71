// A button with a list under it. Arrow keys move, Escape and a click elsewhere close.
import type { ComponentChildren, VNode } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Icon, type IconName } from "./icon.tsx";

export interface MenuItem {
  label: string;
  icon?: IconName;
  hint?: string | undefined;
  checked?: boolean | undefined;
  danger?: boolean;
  /** Said, not done: it can be reached by the keyboard, and a click does nothing. */
  disabled?: boolean;
  /** The menu stays open, to show what comes of it. */
  keepOpen?: boolean;
  /** 0 to 1; null: something goes on, nobody knows how far it is. The hint says it in words. */
  progress?: number | null;
  href?: string;
  onPick?: () => void;
}

interface MenuProps {
  label: string;
  button: ComponentChildren;
  buttonClass?: string;
  items: MenuItem[];
  side?: "left" | "right";
  up?: boolean;
}

export function Menu({ label, button, buttonClass = "icon-button", items, side = "right", up = false }: MenuProps): VNode {
  const [isOpen, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const isEmpty = items.length === 0;
  useLayoutEffect(() => {
    // Also where they come after it was opened: until then the focus is on the button.
    if (isOpen && !isEmpty) root.current!.querySelector<HTMLElement>("[role^=menuitem]")?.focus();
  }, [isOpen, isEmpty]);
  useLayoutEffect(() => {
    if (!isOpen) return;
    const away = (event: Event): void => {
      if (!root.current!.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, [isOpen]);
  useLayoutEffect(() => {
    // The item that had the focus may be gone: what it cancelled is over.
    if (isOpen && document.activeElement === document.body) root.current!.querySelector<HTMLElement>("[role^=menuitem]")?.focus();
  });
  const onKeyDown = (event: KeyboardEvent): void => {
    if (!isOpen) return;
    const all = [...root.current!.querySelectorAll<HTMLElement>("[role^=menuitem]")];
    const at = all.indexOf(document.activeElement as HTMLElement);
    if (event.key === "Escape") {
      setOpen(false);
      root.current!.querySelector("button")?.focus();
    } else if (event.key === "ArrowDown") all[(at + 1) % all.length]?.focus();
    else if (event.key === "ArrowUp") all[(at - 1 + all.length) % all.length]?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class={isOpen ? "menu-root open" : "menu-root"} ref={root} onKeyDown={onKeyDown}>
      <button
        type="button"
        class={buttonClass}
        aria-label={label}
        title={label}
        aria-haspopup="menu"
        aria-expanded={isOpen}
        onClick={(event) => {
          event.preventDefault();
          setOpen(!isOpen);
        }}
      >
        {button}
      </button>
      {isOpen && (
        <div class={`menu ${side}${up ? " up" : ""}`} role="menu" aria-label={label}>
          {items.map((item) => (
            <Item key={item.label} item={item} close={() => setOpen(false)} />
          ))}
        </div>
      )}
    </div>
  );
}

function Item({ item, close }: { item: MenuItem; close: () => void }): VNode {
  const content = (
    <>
      {item.icon && <Icon name={item.icon} />}
      <span class="menu-text">
        {item.label}
        {item.hint && <small>{item.hint}</small>}
        {item.progress !== undefined && <progress aria-hidden="true" value={item.progress ?? undefined} />}
      </span>
      {item.checked && <Icon name="check" />}
    </>
  );
  const style = item.danger ? "menu-item danger" : "menu-item";
  if (item.href !== undefined) {
    return (
      <a class={style} role="menuitem" href={item.href} download onClick={close}>
        {content}
      </a>
    );
  }
  const pick = (): void => {
    if (item.disabled) return;
    if (!item.keepOpen) close();
    item.onPick?.();
  };
  const isChoice = item.checked !== undefined;
  return (
    <button type="button" class={style} role={isChoice ? "menuitemradio" : "menuitem"} aria-checked={isChoice ? item.checked : undefined} aria-disabled={item.disabled} onClick={pick}>
      {content}
    </button>
  );
}
