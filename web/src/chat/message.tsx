// One message: the person's in a bubble, the model's as a page of text with its thinking above.
import type { ComponentChildren, VNode } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { sendsMessage } from "../core/keys.ts";
import type { LiveRun } from "../core/live.ts";
import { seconds } from "../core/format.ts";
import type { PathStep } from "../core/tree.ts";
import type { Message } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { showPreview } from "../preview/state.ts";
import { Prose } from "../render/prose.tsx";
import { CopyButton } from "../ui/copy.tsx";
import { Icon, Mark } from "../ui/icon.tsx";
import { choose, runs, send, thinkingTimes } from "./store.ts";
import { Thinking } from "./thinking.tsx";
import { UsageLine } from "./usage.tsx";

export function Step({ step, isLast }: { step: PathStep; isLast: boolean }): VNode {
  return step.message.role === "user" ? <UserMessage step={step} /> : <Answer step={step} isLast={isLast} />;
}

function Branches({ step }: { step: PathStep }): VNode | null {
  const { siblings, message } = step;
  if (siblings.length < 2) return null;
  const at = siblings.indexOf(message.id);
  const to = (index: number) => (): void => choose(message, siblings[index]!);
  return (
    <div class="branches" role="group" aria-label={t().branchOf(at + 1, siblings.length)}>
      <button type="button" class="icon-button" aria-label={t().previousBranch} title={t().previousBranch} disabled={at === 0} onClick={to(at - 1)}>
        <Icon name="left" />
      </button>
      <span>
        {at + 1}/{siblings.length}
      </span>
      <button type="button" class="icon-button" aria-label={t().nextBranch} title={t().nextBranch} disabled={at === siblings.length - 1} onClick={to(at + 1)}>
        <Icon name="right" />
      </button>
    </div>
  );
}

function UserMessage({ step }: { step: PathStep }): VNode {
  const [isEditing, setEditing] = useState(false);
  const { message } = step;
  return (
    <article class="message user" aria-label={t().you} data-message={message.id}>
      {isEditing ? (
        <Editor message={message} onClose={() => setEditing(false)} />
      ) : (
        <>
          <div class="bubble">{message.content}</div>
          <div class={step.siblings.length > 1 ? "message-actions shown" : "message-actions"}>
            <Branches step={step} />
            <CopyButton text={message.content} />
            <button type="button" class="icon-button edit-button" aria-label={t().edit} title={t().edit} onClick={() => setEditing(true)}>
              <Icon name="edit" />
            </button>
          </div>
        </>
      )}
    </article>
  );
}

function Editor({ message, onClose }: { message: Message; onClose: () => void }): VNode {
  const [text, setText] = useState(message.content);
  const field = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => field.current!.focus(), []); // a browser heeds autofocus once a page
  const save = async (): Promise<void> => {
    if (text.trim() && (await send(text, message.parent_id))) onClose();
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "Escape" && !event.isComposing) {
      event.stopPropagation();
      onClose();
    } else if (sendsMessage(event)) {
      event.preventDefault();
      void save();
    }
  };
  return (
    <div class="editor">
      <textarea class="input" ref={field} aria-label={t().editMessage} value={text} rows={3} onInput={(event) => setText(event.currentTarget.value)} onKeyDown={onKeyDown} />
      <div class="dialog-actions">
        <button type="button" class="button" onClick={onClose}>
          {t().cancel}
        </button>
        <button type="button" class="button primary" onClick={() => void save()}>
          {t().sendEdit}
        </button>
      </div>
    </div>
  );
}

function Frame({ message, busy, children }: { message: Message; busy: boolean; children: ComponentChildren }): VNode {
  return (
    <article class="message assistant" aria-label={message.model ?? t().model} aria-busy={busy} data-message={message.id} data-state={message.state}>
      <div class="avatar">
        <Mark size={22} />
      </div>
      <div class="answer">{children}</div>
    </article>
  );
}

/** One component before and after the end, so that nothing is drawn anew when an answer is done. */
function Answer({ step, isLast }: { step: PathStep; isLast: boolean }): VNode {
  const { message } = step;
  const run = (message.run_id && runs.value.get(message.run_id)) || null;
  const state = run?.state.value ?? null;
  const { reasoning, content } = state ?? message;
  const isThinking = state !== null && state.thinkingSince !== null && state.thinkingMs === null;
  const told = message.usage?.thinking_seconds; // by the server, for whoever comes later
  const ms = state ? state.thinkingMs : (thinkingTimes.value.get(message.id) ?? (told ? told * 1000 : null));
  return (
    <Frame message={message} busy={run !== null}>
      {reasoning && <Thinking key="thinking" text={reasoning} since={isThinking ? state.thinkingSince : null} ms={ms} />}
      {content && <Prose key="answer" text={content} live={run !== null} onRun={showPreview} />}
      {run ? <Progress key="progress" run={run} /> : <Ending key="ending" step={step} isLast={isLast} />}
    </Frame>
  );
}

function Progress({ run }: { run: LiveRun }): VNode {
  const { queue, reasoning, content } = run.state.value;
  return (
    <>
      {queue && (
        <p class="waiting" data-queue={queue.position}>
          <span class="dots" />
          {t().queuePlace(queue.position)}
          {queue.seconds !== null && queue.seconds !== undefined && <small> · {t().queueWait(seconds(queue.seconds))}</small>}
        </p>
      )}
      {!queue && !reasoning && !content && (
        <p class="waiting">
          <span class="dots" />
          {t().waiting}
        </p>
      )}
      {run.isLost.value && <p class="notice">{t().reconnecting}</p>}
    </>
  );
}

function Ending({ step, isLast }: { step: PathStep; isLast: boolean }): VNode {
  const { message } = step;
  return (
    <>
      {!message.content && message.state === "complete" && <p class="muted">{t().emptyAnswer}</p>}
      <State message={message} />
      <div class={isLast || step.siblings.length > 1 ? "message-actions shown" : "message-actions"}>
        <Branches step={step} />
        <CopyButton text={message.content} />
        <button type="button" class="icon-button" aria-label={t().regenerate} title={t().regenerate} onClick={() => void send(null, message.parent_id)}>
          <Icon name="again" />
        </button>
        {message.usage && <UsageLine usage={message.usage} model={message.model} />}
      </div>
    </>
  );
}

function State({ message }: { message: Message }): VNode | null {
  if (message.state === "stopped") return <p class="notice quiet">{t().stopped}</p>;
  if (message.state === "interrupted") return <p class="notice">{t().interrupted}</p>;
  if (message.state !== "error") return null;
  const detail = typeof message.error === "string" ? message.error : message.error?.message;
  return (
    <p class="notice error">
      {t().failed} {detail}
    </p>
  );
}
