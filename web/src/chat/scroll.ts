// Keeps the newest line in view, but only for a reader who is at the bottom already.
import { signal, type ReadonlySignal } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect, useMemo } from "preact/hooks";

const NEAR = 48;

export interface Follow {
  isAtBottom: ReadonlySignal<boolean>;
  jump: (smooth?: boolean) => void;
}

/** `scroller` scrolls, `content` grows. A new `key` starts at the bottom. */
export function useFollow(scroller: RefObject<HTMLElement | null>, content: RefObject<HTMLElement | null>, key: string): Follow {
  const atBottom = useMemo(() => signal(true), []);
  const jump = (smooth = false): void => {
    atBottom.value = true;
    scroller.current?.scrollTo({ top: scroller.current.scrollHeight, behavior: smooth ? "smooth" : "instant" });
  };
  useEffect(() => {
    const box = scroller.current!;
    const onScroll = (): void => {
      atBottom.value = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    };
    // The reader moves up before the scroll event tells: growth in between must not pull back.
    const onWheel = (event: WheelEvent): void => {
      if (event.deltaY < 0 && box.scrollHeight > box.clientHeight) atBottom.value = false;
    };
    const grown = new ResizeObserver(() => {
      if (atBottom.value) box.scrollTop = box.scrollHeight;
    });
    grown.observe(content.current!);
    grown.observe(box);
    box.addEventListener("scroll", onScroll, { passive: true });
    box.addEventListener("wheel", onWheel, { passive: true });
    return () => {
      grown.disconnect();
      box.removeEventListener("scroll", onScroll);
      box.removeEventListener("wheel", onWheel);
    };
  }, []);
  useEffect(() => jump(), [key]);
  return { isAtBottom: atBottom, jump };
}
