// Practice with known answers, and problems of one's own. What is right is said by an exact solver,
// never by the model: each verdict here comes from the server's check.
import "../styles/pages.css";
import { signal } from "@preact/signals";
import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { api } from "../core/api.ts";
import { explain } from "../core/session.ts";
import type { TutorFamily } from "../core/types.ts";
import { language, t } from "../i18n/index.ts";
import { Prose } from "../render/prose.tsx";
import { Segmented } from "../ui/segmented.tsx";
import { toast } from "../ui/toast.tsx";
import { OwnProblem } from "./own_problem.tsx";
import { useLoaded } from "./use.ts";

const tally = signal({ right: 0, all: 0 });

export default function Tutor(): VNode {
  const [mode, setMode] = useState<"practise" | "own">("practise");
  return (
    <div class="page">
      <p class="lead">{t().tutorLead}</p>
      <Segmented
        label={t().tutor}
        value={mode}
        options={[
          { value: "practise", label: t().practise },
          { value: "own", label: t().myProblem },
        ]}
        onChange={setMode}
      />
      {mode === "practise" ? <Practise /> : <OwnProblem />}
    </div>
  );
}

function Practise(): VNode {
  const { value, error } = useLoaded(() => api.families(), null);
  const [name, setName] = useState("");
  const [level, setLevel] = useState(0);
  const [problem, setProblem] = useState<{ problem_id: string; prompt: string } | null>(null);
  const families = value?.families ?? [];
  const family = families.find((one) => one.name === name) ?? families[0];
  const chosen = family?.levels.find((one) => one.level === level) ?? family?.levels[0];

  const next = async (): Promise<void> => {
    if (!family || !chosen) return;
    try {
      setProblem(await api.problem(family.name, chosen.level, language.value));
    } catch (failure) {
      toast(explain(failure), "error");
    }
  };
  useEffect(() => {
    if (family) void next();
  }, [family?.name, chosen?.level, language.value]);
  if (error) return <p class="notice error">{error}</p>;
  return (
    <>
      <div class="controls">
        <FamilyChoice families={families} family={family} onPick={setName} />
        <label class="field">
          <span>{t().level}</span>
          <select class="input" value={String(chosen?.level ?? "")} onChange={(event) => setLevel(Number(event.currentTarget.value))}>
            {family?.levels.map((one) => (
              <option key={one.level} value={String(one.level)}>
                {one.grade !== null && one.grade !== "" ? t().levelGrade(one.level, one.grade) : one.level}
              </option>
            ))}
          </select>
        </label>
        <button type="button" class="button" onClick={() => void next()} disabled={!family}>
          {t().newProblem}
        </button>
        <span class="spacer" />
        {tally.value.all > 0 && <span class="badge accent">{t().score(tally.value.right, tally.value.all)}</span>}
      </div>
      {problem && <Problem key={problem.problem_id} id={problem.problem_id} prompt={problem.prompt} onNext={() => void next()} />}
    </>
  );
}

function FamilyChoice({ families, family, onPick }: { families: TutorFamily[]; family: TutorFamily | undefined; onPick: (name: string) => void }): VNode {
  return (
    <label class="field">
      <span>{t().subject}</span>
      <select class="input" value={family?.name ?? ""} onChange={(event) => onPick(event.currentTarget.value)}>
        {families.map((one) => (
          <option key={one.name} value={one.name}>
            {one.title[language.value]}
          </option>
        ))}
      </select>
    </label>
  );
}

type Checked = { correct: boolean | null; message: string };

function Problem({ id, prompt, onNext }: { id: string; prompt: string; onNext: () => void }): VNode {
  const [answer, setAnswer] = useState("");
  const [checked, setChecked] = useState<Checked | null>(null);
  const [hints, setHints] = useState<{ text: string; last: boolean }[]>([]);
  const guard = (work: Promise<void>): void => void work.catch((failure: unknown) => toast(explain(failure), "error"));
  const check = async (): Promise<void> => {
    const first = checked === null;
    const result = await api.check(id, answer);
    setChecked(result);
    if (first) tally.value = { right: tally.value.right + (result.correct ? 1 : 0), all: tally.value.all + 1 };
  };
  const more = async (): Promise<void> => {
    const hint = await api.hint(id, hints.length);
    setHints((all) => [...all, hint]);
  };
  const isOver = hints.at(-1)?.last === true;
  const label = hints.length === 0 ? t().hint : t().nextStep;
  return (
    <section class="card problem">
      <Prose text={prompt} />
      <form
        class="ask-row"
        onSubmit={(event) => {
          event.preventDefault();
          guard(check());
        }}
      >
        <textarea class="input" rows={answer.includes("\n") ? 6 : 1} aria-label={t().yourAnswer} placeholder={t().yourAnswer} value={answer} onInput={(event) => setAnswer(event.currentTarget.value)} />
        <button type="submit" class="button primary" disabled={!answer.trim()}>
          {t().checkAnswer}
        </button>
      </form>
      {checked && <CheckNote checked={checked} />}
      {hints.length > 0 && (
        <ol class="hints">
          {hints.map((hint, index) => (
            <li key={index}>
              <span class="label">{hint.last ? t().solution : index === 0 ? t().hint : t().nextStep}</span>
              <Prose text={hint.text} />
            </li>
          ))}
        </ol>
      )}
      <div class="row-buttons">
        {!isOver && (
          <button type="button" class="button slim" onClick={() => guard(more())}>
            {label}
          </button>
        )}
        {(checked?.correct || isOver) && (
          <button type="button" class="button primary slim" onClick={onNext}>
            {t().newProblem}
          </button>
        )}
      </div>
    </section>
  );
}

function CheckNote({ checked }: { checked: Checked }): VNode {
  const tone = checked.correct === null ? "" : checked.correct ? "good" : "bad";
  const word = checked.correct === null ? t().undecided : checked.correct ? t().correct : t().incorrect;
  return (
    <p class={`verdict ${tone}`} role="status">
      <strong>{word}</strong> {checked.message}
    </p>
  );
}
