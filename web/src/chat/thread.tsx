// The open conversation. Far turns are not in the page until someone scrolls up to them.
import type { VNode } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { mayChat, me } from "../core/session.ts";
import { t } from "../i18n/index.ts";
import { Icon } from "../ui/icon.tsx";
import { Composer } from "./composer.tsx";
import { Empty } from "./empty.tsx";
import { Step } from "./message.tsx";
import { useFollow } from "./scroll.ts";
import { activeRun, current, isMissing, path } from "./store.ts";

const SHOWN = 12; // each frame costs what is in the page

export function Thread({ isLoading }: { isLoading: boolean }): VNode {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const key = current.value?.id ?? "";
  const follow = useFollow(scroller, content, `${key} ${path.value.length}`);
  const isEmpty = !isLoading && !isMissing.value && path.value.length === 0;
  return (
    <div class={isEmpty ? "thread empty" : "thread"}>
      <div class="thread-scroll" ref={scroller} tabIndex={0} role="region" aria-label={t().chat}>
        <div class="column" ref={content} role="log" aria-live="off" aria-busy={activeRun.value !== null}>
          {isMissing.value && <p class="notice">{t().chatNotFound}</p>}
          {isLoading && <p class="muted">{t().loading}</p>}
          {isEmpty ? <Empty /> : <Steps key={key} scroller={scroller} />}
        </div>
      </div>
      <div class="dock">
        {!follow.isAtBottom.value && (
          <button type="button" class="jump" aria-label={t().jumpDown} title={t().jumpDown} onClick={() => follow.jump(true)}>
            <Icon name="arrowDown" />
          </button>
        )}
        {(mayChat.value || !me.value) && <Composer />}
        <p class="disclaimer">{t().disclaimer}</p>
      </div>
    </div>
  );
}

function Steps({ scroller }: { scroller: { current: HTMLElement | null } }): VNode {
  const [count, setCount] = useState(SHOWN);
  const heightBefore = useRef<number | null>(null);
  const steps = path.value;
  const first = Math.max(0, steps.length - count);
  const more = (): void => {
    heightBefore.current = scroller.current!.scrollHeight - scroller.current!.scrollTop;
    setCount((value) => value + SHOWN);
  };
  useLayoutEffect(() => {
    if (heightBefore.current === null) return;
    scroller.current!.scrollTop = scroller.current!.scrollHeight - heightBefore.current;
    heightBefore.current = null;
  }, [count]);
  return (
    <>
      {first > 0 && <Earlier key={first} onReach={more} />}
      {steps.slice(first).map((step, index) => (
        <Step key={step.message.id} step={step} isLast={first + index === steps.length - 1} />
      ))}
    </>
  );
}

function Earlier({ onReach }: { onReach: () => void }): VNode {
  const node = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && onReach(), { rootMargin: "200px" });
    const timer = setTimeout(() => seen.observe(node.current!), 300); // first the jump to the bottom
    return () => {
      clearTimeout(timer);
      seen.disconnect();
    };
  }, []);
  return (
    <button type="button" class="button earlier" ref={node} onClick={onReach}>
      {t().showEarlier}
    </button>
  );
}
