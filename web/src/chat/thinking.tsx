// The thinking panel: open while the model thinks, closed once it answers, unless the reader chose.
import type { VNode } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { seconds } from "../core/format.ts";
import { t } from "../i18n/index.ts";
import { Prose } from "../render/prose.tsx";
import { Icon } from "../ui/icon.tsx";

interface ThinkingProps {
  text: string;
  /** Since when it thinks, by performance.now; null when it has ended. */
  since: number | null;
  /** How long it thought; null where that is not known. */
  ms: number | null;
}

export function Thinking({ text, since, ms }: ThinkingProps): VNode {
  const isLive = since !== null;
  const [choice, setChoice] = useState<boolean | null>(null);
  const isOpen = choice ?? isLive;
  const body = useId();
  return (
    <section class={isLive ? "thinking live" : "thinking"}>
      <button type="button" class="thinking-head" aria-expanded={isOpen} aria-controls={body} onClick={() => setChoice(!isOpen)}>
        <Icon name="bulb" />
        <span>{isLive ? t().thinkingNow : ms !== null && ms >= 50 ? t().thoughtFor(seconds(ms / 1000)) : t().thought}</span>
        {isLive && <Clock since={since} />}
        <span class={isOpen ? "chevron open" : "chevron"}>
          <Icon name="right" />
        </span>
      </button>
      <div id={body} class="thinking-body" hidden={!isOpen}>
        {isOpen && <Window text={text} isLive={isLive} />}
      </div>
    </section>
  );
}

/** While it thinks, a window of fixed height that follows the newest line. What lies far above is
 * put into the page only for a reader who scrolls up to it. */
function Window({ text, isLive }: { text: string; isLive: boolean }): VNode {
  const node = useRef<HTMLDivElement>(null);
  const [follows, setFollows] = useState(true);
  // In the frame that shows the new line: an effect after it would draw a second one.
  useLayoutEffect(() => {
    if (isLive && follows) node.current!.scrollTop = 1e9;
  }, [text, isLive, follows]);
  const onScroll = (): void => {
    const { scrollHeight, scrollTop, clientHeight } = node.current!;
    if (isLive) setFollows(scrollHeight - scrollTop - clientHeight < 24);
  };
  const live = { class: "thinking-window live", tabIndex: 0, role: "region", "aria-label": t().thinkingNow } as const;
  return (
    <div ref={node} onScroll={onScroll} {...(isLive ? live : { class: "thinking-window" })}>
      <Prose text={text} live={isLive} tail={isLive && follows} />
    </div>
  );
}

function Clock({ since }: { since: number }): VNode {
  const [now, setNow] = useState(() => performance.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 250);
    return () => clearInterval(timer);
  }, []);
  return (
    <span class="clock" aria-hidden="true">
      {seconds(Math.max(0, now - since) / 1000)}
    </span>
  );
}
