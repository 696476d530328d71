// What this is, which models it serves, and under which licence.
import "../styles/pages.css";
import type { VNode } from "preact";
import { describe } from "../chat/picker.tsx";
import { bytes, short } from "../core/format.ts";
import { me, models } from "../core/session.ts";
import { t } from "../i18n/index.ts";
import { Mark } from "../ui/icon.tsx";

export default function About(): VNode {
  return (
    <div class="page narrow">
      <header class="about-head">
        <Mark size={72} />
        <h2>Rorqual</h2>
        <p class="lead">{t().aboutLead}</p>
      </header>
      <section class="card">
        <h2>{t().models}</h2>
        {models.value.length === 0 && <p class="muted">{t().noModels}</p>}
        {models.value.map((one) => (
          <div class="model-card" key={one.id}>
            <strong>{one.title}</strong> <code>{one.id}</code>
            <small class="muted">{describe(one)}</small>
            <dl class="facts">
              <div>
                <dt>{t().size}</dt>
                <dd>{bytes(one.bytes)}</dd>
              </div>
              <div>
                <dt>{t().context}</dt>
                <dd>{short(one.context_length)}</dd>
              </div>
            </dl>
          </div>
        ))}
      </section>
      <section class="card">
        <dl class="facts">
          <div>
            <dt>{t().version}</dt>
            <dd>{me.value?.version ?? ""}</dd>
          </div>
          <div>
            <dt>{t().licence}</dt>
            <dd>{t().licenceText}</dd>
          </div>
          <div>
            <dt>{t().privacy}</dt>
            <dd>{t().privacyText}</dd>
          </div>
        </dl>
        <p class="notice quiet">{t().notSigned}</p>
      </section>
    </div>
  );
}
