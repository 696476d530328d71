// The demonstrations of January 2025, ready to run.
import "../styles/pages.css";
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { submitText } from "../chat/composer.tsx";
import { open } from "../chat/store.ts";
import { go } from "../core/router.ts";
import demonstrations from "../examples/demonstrations.json";
import { language, t } from "../i18n/index.ts";
import { Pane } from "../preview/pane.tsx";
import { programOf } from "../preview/programs.ts";
import { Prose } from "../render/prose.tsx";
import { Icon } from "../ui/icon.tsx";

type Demonstration = (typeof demonstrations)[number];

const canvasFirst = demonstrations.toSorted((a, b) => a.program.localeCompare(b.program));

export default function Examples(): VNode {
  const [running, setRunning] = useState<Demonstration | null>(null);
  return (
    <div class="page wide">
      <p class="lead">{t().examplesLead}</p>
      <div class={running ? "example-grid one" : "example-grid"}>
        {(running ? [running] : canvasFirst).map((one) => (
          <section class="card example" key={one.ball + one.program} data-example={`${one.ball}-${one.program}`}>
            <h2>
              {one.ball === "yellow" ? t().suggestBall : t().suggestTriangle}
              <span class="badge">{one.program === "python" ? "Python" : "JavaScript"}</span>
            </h2>
            <p class="muted" lang={one.language === language.value ? undefined : one.language}>
              {one.prompt}
            </p>
            <div class="row-buttons">
              <button type="button" class="button primary slim" onClick={() => setRunning(running ? null : one)}>
                <Icon name={running ? "cross" : "play"} />
                {running ? t().close : t().run}
              </button>
              <button type="button" class="button slim" onClick={() => ask(one.prompt)}>
                {t().askModel}
              </button>
            </div>
            <details open={running !== null}>
              <summary class="muted small">{one.program === "python" ? "program.py" : "program.js"}</summary>
              <Prose text={`\`\`\`${one.program}\n${one.code.trimEnd()}\n\`\`\``} />
            </details>
          </section>
        ))}
        {running && <Pane program={programOf(running.code, running.program)} canFix={false} />}
      </div>
    </div>
  );
}

function ask(prompt: string): void {
  void open(null);
  go("chat");
  submitText(prompt);
}
