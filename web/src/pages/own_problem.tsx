// A problem as typed: the model answers, an exact solver judges.
import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { api } from "../core/api.ts";
import { sendsMessage } from "../core/keys.ts";
import { explain, model } from "../core/session.ts";
import type { Verdict, Verification } from "../core/types.ts";
import { language, t } from "../i18n/index.ts";
import { Prose } from "../render/prose.tsx";
import { Icon } from "../ui/icon.tsx";
import { toast } from "../ui/toast.tsx";
import { AnswerView } from "./answer.tsx";
import { ask, type Asked } from "./asking.ts";

const MAX_ANSWER = 20_000; // characters that the server reads; the end holds the answer

export function OwnProblem(): VNode {
  const [text, setText] = useState("");
  const [asked, setAsked] = useState<{ text: string; asked: Asked } | null>(null);
  const isBusy = asked !== null && asked.asked.ended.value === null;
  const submit = async (): Promise<void> => {
    const served = model.value;
    if (!served || !text.trim() || isBusy) return;
    try {
      setAsked({ text, asked: await ask(text, served) });
    } catch (failure) {
      toast(explain(failure), "error");
    }
  };
  return (
    <>
      <form
        class="ask-row"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <textarea
          class="input"
          rows={3}
          aria-label={t().problemText}
          placeholder={t().problemPlaceholder}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (!sendsMessage(event)) return;
            event.preventDefault();
            void submit();
          }}
        />
        <button type="submit" class="button primary" disabled={isBusy || !text.trim()}>
          {t().solveIt}
        </button>
      </form>
      {asked && <Judged key={asked.asked.run.id} text={asked.text} asked={asked.asked} />}
    </>
  );
}

function Judged({ text, asked }: { text: string; asked: Asked }): VNode {
  const [verification, setVerification] = useState<Verification | null>(null);
  const ended = asked.ended.value;
  useEffect(() => {
    if (ended?.end?.state !== "complete") return;
    // The working is in the thinking: its lines are checked too, the answer comes last.
    const answer = `${ended.reasoning}\n${ended.content}`.slice(-MAX_ANSWER);
    api.verify(text, answer, language.value).then(setVerification, (failure: unknown) => toast(explain(failure), "error"));
  }, [ended]);
  return (
    <section class="card problem">
      <AnswerView asked={asked} />
      {verification && <VerdictView verification={verification} />}
    </section>
  );
}

function VerdictView({ verification }: { verification: Verification }): VNode {
  const { verdict, kind, expected, steps } = verification;
  const isProgram = kind === "program";
  const hints: Record<Verdict, string> = {
    verified: isProgram ? t().examplesHold : t().verifiedHint,
    wrong: isProgram ? t().examplesFail : t().wrongHint,
    unverified: isProgram ? t().noProgram : kind && kind !== "unknown" ? t().unreadAnswer : t().unverifiedHint,
  };
  return (
    <div class="verdict-block">
      <p class={`verdict ${TONES[verdict]}`} role="status" data-verdict={verdict}>
        <strong>
          <Icon name={verdict === "verified" ? "check" : verdict === "wrong" ? "cross" : "alert"} />
          {t()[verdict]}
        </strong>{" "}
        {hints[verdict]} {verdict === "wrong" && expected !== null && t().expected(expected)}
      </p>
      {steps.length > 0 && (
        <>
          <span class="label">{t().steps}</span>
          <ol class="steps">
            {steps.map((step, index) => (
              <li key={index}>
                <span class={`badge ${TONES[step.verdict]}`}>{t()[step.verdict]}</span>
                <Prose text={step.text} />
              </li>
            ))}
          </ol>
        </>
      )}
    </div>
  );
}

const TONES: Record<Verdict, string> = { verified: "good", wrong: "bad", unverified: "" };
