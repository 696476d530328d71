// An answer as it comes in, on pages other than the chat.
import type { VNode } from "preact";
import { seconds } from "../core/format.ts";
import { t } from "../i18n/index.ts";
import { Prose } from "../render/prose.tsx";
import { Thinking } from "../chat/thinking.tsx";
import { UsageLine } from "../chat/usage.tsx";
import type { Asked } from "./asking.ts";

interface AnswerViewProps {
  asked: Asked;
  onRun?: (code: string, language: string) => void;
}

export function AnswerView({ asked, onRun }: AnswerViewProps): VNode {
  const state = asked.ended.value ?? asked.run.state.value;
  const isThinking = state.thinkingSince !== null && state.thinkingMs === null;
  const isLive = asked.ended.value === null;
  const failure = state.end?.error;
  return (
    <div class="answer" aria-busy={isLive}>
      {state.reasoning && <Thinking text={state.reasoning} since={isThinking ? state.thinkingSince : null} ms={state.thinkingMs} />}
      {state.content && <Prose text={state.content} live={isLive} onRun={onRun} />}
      {isLive && !state.reasoning && !state.content && (
        <p class="waiting">
          <span class="dots" />
          {state.queue ? t().queuePlace(state.queue.position) : t().waiting}
          {state.queue?.seconds ? ` · ${t().queueWait(seconds(state.queue.seconds))}` : ""}
        </p>
      )}
      {asked.run.isLost.value && <p class="notice">{t().reconnecting}</p>}
      {state.end?.state === "error" && <p class="notice error">{typeof failure === "string" ? failure : (failure?.message ?? t().failed)}</p>}
      {state.end?.state === "interrupted" && <p class="notice">{t().interrupted}</p>}
      {state.end?.usage && <UsageLine usage={state.end.usage} model={state.model} />}
    </div>
  );
}
