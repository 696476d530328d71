// One run: live curves, beside another run's if wanted; samples by step; settings; findings.
import type { VNode } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { api } from "../core/api.ts";
import { number } from "../core/format.ts";
import { hrefOf } from "../core/router.ts";
import { explain, isAdmin } from "../core/session.ts";
import type { LabRun, LabSamples } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { Prose } from "../render/prose.tsx";
import { Icon } from "../ui/icon.tsx";
import { Segmented } from "../ui/segmented.tsx";
import { toast } from "../ui/toast.tsx";
import { Chart } from "./chart.tsx";
import { StateBadge } from "./lab.tsx";
import { merged, type Point } from "./series.ts";
import { useLoaded } from "./use.ts";

const FIRST = ["loss", "bpb", "bits", "reward", "pass@1", "pass", "length", "think", "load", "tokens_per_second"];

type Tab = "curves" | "samples" | "settings";

export function RunView({ run, others, onChange }: { run: LabRun; others: LabRun[]; onChange: () => void }): VNode {
  const [tab, setTab] = useState<Tab>("curves");
  const stop = (): void => void api.stopLabRun(run.id).then(onChange, (failure: unknown) => toast(explain(failure), "error"));
  return (
    <div class="page wide">
      <header class="run-head">
        <a class="icon-button" href={hrefOf("lab")} aria-label={t().lab}>
          <Icon name="left" />
        </a>
        <h2>{run.title}</h2>
        <StateBadge state={run.state} />
        {run.step !== null && (
          <span class="muted small">
            {t().atStep(number(run.step))}
          </span>
        )}
        <span class="spacer" />
        {run.state === "running" && isAdmin.value && (
          <button type="button" class="button slim" onClick={stop}>
            {t().stop}
          </button>
        )}
        <Segmented
          label={run.title}
          value={tab}
          options={[
            { value: "curves", label: t().curves },
            { value: "samples", label: t().samples },
            { value: "settings", label: t().settings },
          ]}
          onChange={setTab}
        />
      </header>
      {tab === "curves" && <Curves run={run} others={others} />}
      {tab === "samples" && <Samples run={run} />}
      {tab === "settings" && <Details run={run} />}
    </div>
  );
}

/** All points of a run, and the new ones every few seconds while it goes on. */
function useSeries(id: string | null): Record<string, Point[]> {
  const [series, setSeries] = useState<Record<string, Point[]>>({});
  useEffect(() => {
    setSeries({});
    if (id === null) return;
    const stop = new AbortController();
    let after = -1;
    let timer: ReturnType<typeof setTimeout>;
    const read = async (): Promise<void> => {
      let isRunning = true;
      try {
        const news = await api.labMetrics(id, after, stop.signal);
        isRunning = news.state === "running";
        for (const points of Object.values(news.series)) after = Math.max(after, points.at(-1)?.[0] ?? after);
        if (Object.keys(news.series).length > 0) setSeries((old) => merged(old, news.series));
      } catch {
        // Read again below: a poll that fails is not worth a message.
      }
      if (isRunning && !stop.signal.aborted) timer = setTimeout(() => void read(), 3000);
    };
    void read();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [id]);
  return series;
}

function rank(name: string): number {
  const exact = FIRST.indexOf(name.toLowerCase().split("/").pop()!);
  if (exact >= 0) return exact;
  const found = FIRST.findIndex((part) => name.toLowerCase().includes(part));
  return found < 0 ? 2 * FIRST.length : found + FIRST.length; // such as a module's own loss: further down
}

function Curves({ run, others }: { run: LabRun; others: LabRun[] }): VNode {
  const [otherId, setOtherId] = useState("");
  const [smoothing, setSmoothing] = useState(0);
  const mine = useSeries(run.id);
  const theirs = useSeries(otherId || null);
  const other = others.find((one) => one.id === otherId);
  const charts = useMemo(() => {
    const names = Object.keys(mine).sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
    return names.map((name) => {
      const lines = [{ name: run.title, points: mine[name]! as readonly Point[] }];
      if (other && theirs[name]) lines.push({ name: other.title, points: theirs[name] });
      return { name, lines };
    });
  }, [mine, theirs, other, run.title]);
  return (
    <>
      <div class="controls">
        <label class="field">
          <span>{t().compareWith}</span>
          <select class="input" value={otherId} onChange={(event) => setOtherId(event.currentTarget.value)}>
            <option value="">{t().none}</option>
            {others.map((one) => (
              <option key={one.id} value={one.id}>
                {one.title}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          <span>{t().smooth}</span>
          <input type="range" min="0" max="0.98" step="0.02" value={smoothing} onInput={(event) => setSmoothing(Number(event.currentTarget.value))} />
        </label>
        {other && (
          <p class="legend">
            <span class="line-0">{run.title}</span>
            <span class="line-1">{other.title}</span>
          </p>
        )}
      </div>
      {charts.length === 0 && <p class="muted">{t().loading}</p>}
      <div class="chart-grid">
        {charts.map(({ name, lines }) => (
          <Chart key={name} title={name} lines={lines} smoothing={smoothing} />
        ))}
      </div>
    </>
  );
}

function Samples({ run }: { run: LabRun }): VNode {
  const [step, setStep] = useState<number | null>(null);
  const { value, error } = useLoaded(() => api.labSamples(run.id, step), null, [step]);
  if (error) return <p class="notice error">{error}</p>;
  if (!value) return <p class="muted">{t().loading}</p>;
  if (value.steps.length === 0) return <p class="muted">{t().noSamples}</p>;
  const shown = step ?? value.steps.at(-1)!;
  return (
    <>
      <label class="field sample-slider">
        <span>
          {t().atStep(number(shown))}
        </span>
        <input type="range" min="0" max={value.steps.length - 1} value={value.steps.indexOf(shown)} aria-valuetext={t().atStep(number(shown))} onInput={(event) => setStep(value.steps[Number(event.currentTarget.value)] ?? null)} />
      </label>
      <div class="samples">
        {value.samples.map((sample, index) => (
          <SampleCard key={index} sample={sample} />
        ))}
      </div>
    </>
  );
}

function SampleCard({ sample }: { sample: LabSamples["samples"][number] }): VNode {
  return (
    <article class="card sample">
      <header class="card-head">
        <Prose text={sample.prompt} />
        {sample.correct !== null && <span class={`badge ${sample.correct ? "good" : "bad"}`}>{sample.correct ? t().sampleRight : t().sampleWrong}</span>}
      </header>
      <div class="sample-text">
        <Prose text={sample.text} />
      </div>
      {sample.answer && (
        <p class="small">
          <span class="muted">{t().answer}</span> <code>{sample.answer}</code>
        </p>
      )}
    </article>
  );
}

/** What a run's doctor noted, as a line of a list. */
function findingLine(finding: string | Record<string, unknown>): string {
  if (typeof finding === "string") return `- ${finding}`;
  const { step, meaning, advice } = finding;
  const words = [meaning, advice].filter((part) => typeof part === "string");
  return `- ${step === undefined ? "" : `**${t().atStep(String(step))}** `}${words.join(" ") || JSON.stringify(finding)}`;
}

function Details({ run }: { run: LabRun }): VNode {
  const { value, error } = useLoaded(() => api.labRun(run.id), null);
  if (error) return <p class="notice error">{error}</p>;
  if (!value) return <p class="muted">{t().loading}</p>;
  const findings = typeof value.findings === "string" ? value.findings : (value.findings ?? []).map(findingLine).join("\n");
  const config = typeof value.config === "string" ? value.config : JSON.stringify(value.config, null, 2);
  return (
    <>
      {findings && (
        <section class="card">
          <h2>{t().findings}</h2>
          <Prose text={findings} />
        </section>
      )}
      <section class="card">
        <h2>{t().settings}</h2>
        <Prose text={`\`\`\`json\n${config}\n\`\`\``} />
      </section>
    </>
  );
}
