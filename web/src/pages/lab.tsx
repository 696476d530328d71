// The runs of this server: a list, and one of them at a time.
import "../styles/pages.css";
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { api } from "../core/api.ts";
import { dateTime, number } from "../core/format.ts";
import { hrefOf, route } from "../core/router.ts";
import { explain, isAdmin } from "../core/session.ts";
import type { LabRun } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { Dialog } from "../ui/dialog.tsx";
import { Icon } from "../ui/icon.tsx";
import { toast } from "../ui/toast.tsx";
import { RunView } from "./lab_run.tsx";
import { useLoaded } from "./use.ts";

export default function Lab(): VNode {
  const { value, error, reload } = useLoaded((signal) => api.labRuns(signal), 5000);
  const [isStarting, setStarting] = useState(false);
  const runs = value?.runs ?? [];
  const open = runs.find((run) => run.id === route.value.key) ?? null;
  if (open) return <RunView key={open.id} run={open} others={runs.filter((run) => run.id !== open.id)} onChange={reload} />;
  return (
    <div class="page wide">
      <p class="lead">{t().labLead}</p>
      {error && <p class="notice error">{error}</p>}
      <div class="lab-grid">
        <section class="card">
          <header class="card-head">
            <h2>{t().runs}</h2>
            {isAdmin.value && (
              <button type="button" class="button slim" onClick={() => setStarting(true)}>
                <Icon name="plus" />
                {t().startRun}
              </button>
            )}
          </header>
          {value && runs.length === 0 && <p class="muted">{t().noRuns}</p>}
          <ul class="rows">
            {runs.map((run) => (
              <RunRow key={run.id} run={run} />
            ))}
          </ul>
        </section>
        <Guide />
      </div>
      {isStarting && (
        <StartRun
          onClose={() => {
            setStarting(false);
            reload();
          }}
        />
      )}
    </div>
  );
}

export function StateBadge({ state }: { state: LabRun["state"] }): VNode {
  const words = { running: t().stateRunning, done: t().stateDone, stopped: t().stateStopped };
  return <span class={`badge ${state === "running" ? "good" : state === "stopped" ? "warm" : ""}`}>{words[state]}</span>;
}

function kindName(kind: string): string {
  const names: Record<string, string> = t().runKinds;
  return names[kind] ?? kind;
}

function RunRow({ run }: { run: LabRun }): VNode {
  return (
    <li>
      <a class="row link" href={hrefOf("lab", run.id)}>
        <div class="row-main">
          <strong>{run.title}</strong>
          <small class="muted">
            {kindName(run.kind)}
            {run.step !== null && ` · ${t().atStep(number(run.step))}`} · {dateTime(run.updated).replaceAll(" ", "\u00a0")}
          </small>
        </div>
        <StateBadge state={run.state} />
      </a>
    </li>
  );
}

function Guide(): VNode {
  return (
    <section class="card guide">
      <h2>{t().guide}</h2>
      <ol>
        {t().guideSteps.map((step) => (
          <li key={step.title}>
            <strong>{step.title}</strong>
            <p>{step.text}</p>
          </li>
        ))}
      </ol>
    </section>
  );
}

/** Lines of `section.key = value`; the server says what is wrong with them. */
function readOverrides(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.replace(/\s*=\s*/, "=").trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}

function StartRun({ onClose }: { onClose: () => void }): VNode {
  const [preset, setPreset] = useState("tiny");
  const [overrides, setOverrides] = useState("");
  const start = async (event: Event): Promise<void> => {
    event.preventDefault();
    try {
      const { id } = await api.startLabRun(preset, readOverrides(overrides));
      onClose();
      location.hash = hrefOf("lab", id);
    } catch (failure) {
      toast(explain(failure), "error");
    }
  };
  return (
    <Dialog title={t().startRun} onClose={onClose}>
      <form class="form" onSubmit={(event) => void start(event)}>
        <label class="field">
          <span>{t().preset}</span>
          <input class="input" required value={preset} onInput={(event) => setPreset(event.currentTarget.value)} />
        </label>
        <label class="field">
          <span>{t().overrides}</span>
          <textarea class="input mono" rows={4} placeholder="train.learning_rate = 6e-4" value={overrides} onInput={(event) => setOverrides(event.currentTarget.value)} />
        </label>
        <button type="submit" class="button primary">
          {t().start}
        </button>
      </form>
    </Dialog>
  );
}
