// One prompt, two models. Kept as one conversation with two answers to the same message.
import "../styles/pages.css";
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { sendsMessage } from "../core/keys.ts";
import { explain, model, models } from "../core/session.ts";
import type { Model } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { Pane } from "../preview/pane.tsx";
import { programOf, type Program } from "../preview/programs.ts";
import { toast } from "../ui/toast.tsx";
import { AnswerView } from "./answer.tsx";
import { ask, type Asked } from "./asking.ts";

export default function Compare(): VNode {
  const installed = models.value.filter((one) => !one.fetchable);
  const [ids, setIds] = useState<[string, string]>(["", ""]);
  const pick = (side: 0 | 1): Model | undefined =>
    installed.find((one) => one.id === ids[side]) ?? (side === 0 ? (model.value ?? installed[0]) : (installed.find((one) => one.id !== pick(0)?.id) ?? installed[0]));
  const [text, setText] = useState("");
  const [asked, setAsked] = useState<(Asked | null)[]>([null, null]);
  const isBusy = asked.some((one) => one && one.ended.value === null);

  const submit = async (): Promise<void> => {
    const [left, right] = [pick(0), pick(1)];
    if (!text.trim() || !left || !right || isBusy) return;
    try {
      const first = await ask(text, left);
      setAsked([first, null]);
      setAsked([first, await ask(text, right, first)]);
    } catch (failure) {
      toast(explain(failure), "error");
    }
  };
  return (
    <div class="page wide">
      <p class="lead">{t().compareLead}</p>
      {installed.length === 1 && <p class="notice quiet">{t().compareOne}</p>}
      <form
        class="ask-row"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <textarea
          class="input"
          rows={2}
          placeholder={t().comparePlaceholder}
          aria-label={t().comparePlaceholder}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (!sendsMessage(event)) return;
            event.preventDefault();
            void submit();
          }}
        />
        <button type="submit" class="button primary" disabled={isBusy || !text.trim()}>
          {t().send}
        </button>
      </form>
      <div class="two-columns">
        {([0, 1] as const).map((side) => (
          <Side key={side} side={side} installed={installed} picked={pick(side)} asked={asked[side] ?? null} onPick={(id) => setIds(side === 0 ? [id, ids[1]] : [ids[0], id])} />
        ))}
      </div>
    </div>
  );
}

interface SideProps {
  side: 0 | 1;
  installed: Model[];
  picked: Model | undefined;
  asked: Asked | null;
  onPick: (id: string) => void;
}

function Side({ side, installed, picked, asked, onPick }: SideProps): VNode {
  const [program, setProgram] = useState<{ program: Program; turn: number } | null>(null);
  const run = (code: string, language: string): void =>
    setProgram({ program: programOf(code, language), turn: (program?.turn ?? 0) + 1 });
  return (
    <section class="card side" aria-label={side === 0 ? t().left : t().right}>
      <select class="input" aria-label={t().model} value={picked?.id ?? ""} onChange={(event) => onPick(event.currentTarget.value)}>
        {installed.map((one) => (
          <option key={one.id} value={one.id}>
            {one.title}
          </option>
        ))}
      </select>
      {asked ? <AnswerView asked={asked} onRun={run} /> : <p class="muted small pending">{t().compareHint}</p>}
      {asked && asked.ended.value === null && (
        <button type="button" class="button slim" onClick={() => void asked.run.stop()}>
          {t().stop}
        </button>
      )}
      {program && <Pane key={program.turn} program={program.program} onClose={() => setProgram(null)} canFix={false} />}
    </section>
  );
}
