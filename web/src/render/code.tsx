// A code block: its language, a copy button, a run button where we can run it, colours when idle.
import type { Tokens } from "marked";
import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n/index.ts";
import { CopyButton } from "../ui/copy.tsx";
import { Icon } from "../ui/icon.tsx";
import { runnableAs } from "../preview/programs.ts";
import type { RenderContext } from "./vnodes.tsx";

const MAX_HIGHLIGHT = 50_000;
const LIVE_INTERVAL_MS = 170; // an open block is coloured at most six times a second

export function CodeBlock({ token, context }: { token: Tokens.Code; context: RenderContext }): VNode {
  const language = (token.lang ?? "").trim().split(/\s/)[0]!.toLowerCase();
  const runnable = runnableAs(language, token.text);
  return (
    <figure class="code-block">
      <figcaption>
        <span class="code-language">{language || "text"}</span>
        <span class="spacer" />
        {runnable && context.onRun && !context.live && (
          <button type="button" class="code-action run" title={t().runHint} onClick={() => context.onRun!(token.text, language)}>
            <Icon name="play" /> {t().run}
          </button>
        )}
        <CopyButton class="code-action" text={token.text} />
      </figcaption>
      <pre tabIndex={0}>
        <Coloured code={token.text} language={language} live={context.live} />
      </pre>
    </figure>
  );
}

function Coloured({ code, language, live }: { code: string; language: string; live: boolean }): VNode {
  const node = useRef<HTMLElement>(null);
  const due = useRef(0);
  const shown = useRef("");
  const [, refresh] = useState(0);
  useEffect(() => {
    if (!language || code.length > MAX_HIGHLIGHT) return;
    let isGone = false;
    const wait = live ? Math.max(0, due.current - performance.now()) : 0;
    const timer = setTimeout(() => void colour(), wait);
    async function colour(): Promise<void> {
      const { highlight } = await import("./highlight.ts");
      if (isGone || !node.current) return;
      const html = highlight(code, language);
      due.current = performance.now() + LIVE_INTERVAL_MS;
      if (html === null) return;
      shown.current = code;
      node.current.innerHTML = html as unknown as string; // TrustedHTML, from DOMPurify
      refresh((count) => count + 1);
    }
    return () => {
      isGone = true;
      clearTimeout(timer);
    };
  }, [code, language, live]);
  // Between two colourings of a growing block the new characters follow uncoloured.
  const isPrefix = shown.current !== "" && code.startsWith(shown.current);
  const rest = isPrefix ? code.slice(shown.current.length) : code;
  return (
    <code class="hljs">
      <span ref={node} class={isPrefix ? undefined : "hidden"} />
      {rest}
    </code>
  );
}
