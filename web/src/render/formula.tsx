// A formula: its source at once, typeset when KaTeX has been fetched (only then is it fetched).
import type { VNode } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

type Typeset = (tex: string, node: HTMLElement, display: boolean) => boolean;

let loaded: Typeset | null = null;
let loading: Promise<Typeset> | null = null;

function load(): Promise<Typeset> {
  loading ??= import("./katex.ts").then((module) => (loaded = module.typeset));
  return loading;
}

interface FormulaProps {
  tex: string;
  display: boolean;
  closed: boolean;
  raw: string;
}

export function Formula({ tex, display, closed, raw }: FormulaProps): VNode {
  const node = useRef<HTMLSpanElement>(null);
  const [isReady, setReady] = useState(loaded !== null);
  useLayoutEffect(() => {
    if (!closed) return;
    if (!isReady || !loaded) {
      let isGone = false;
      void load().then(
        () => isGone || setReady(true),
        () => undefined, // no KaTeX, no typesetting: the source stays
      );
      return () => {
        isGone = true;
      };
    }
    const target = node.current!; // there, since it is ready and closed
    target.replaceChildren();
    if (!loaded(tex, target, display)) target.replaceChildren(raw.trim());
    return undefined;
  }, [tex, display, closed, raw, isReady]);
  const shape = display ? "formula display" : "formula";
  if (!closed || !isReady) return <span key="source" class={`${shape} source`}>{raw.trim()}</span>;
  return <span key="typeset" class={shape} ref={node} />;
}
