// What this is, which models it serves, whose signatures they carry, and under which licence.
import "../styles/pages.css";
import type { VNode } from "preact";
import { describe } from "../chat/picker.tsx";
import { api } from "../core/api.ts";
import { bytes, number } from "../core/format.ts";
import { me, models } from "../core/session.ts";
import type { Signature } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { Mark } from "../ui/icon.tsx";
import { useLoaded } from "./use.ts";

function Fact({ name, children, code = false }: { name: string; children: string | null; code?: boolean }): VNode | null {
  if (!children) return null;
  return (
    <div>
      <dt>{name}</dt>
      <dd>{code ? <code class="fingerprint">{children}</code> : children}</dd>
    </div>
  );
}

function signed(signature: Signature | undefined): string | null {
  if (!signature) return null;
  const { state, signer } = signature;
  return state === "signed" ? t().signedBy(signer ?? "") : t().signatures[state];
}

export default function About(): VNode {
  const release = useLoaded((signal) => api.release(signal), null).value;
  const served = models.value.filter((one) => !one.fetchable);
  const signatureOf = (id: string) => release?.models.find((one) => one.id === id)?.signature;
  return (
    <div class="page narrow">
      <header class="about-head">
        <Mark size={72} />
        <h2>Rorqual</h2>
        <p class="lead">{t().aboutLead}</p>
      </header>
      <section class="card">
        <h2>{t().models}</h2>
        {served.length === 0 && <p class="muted">{t().noModels}</p>}
        {served.map((one) => (
          <div class="model-card" key={one.id}>
            <strong>{one.title}</strong> {one.title !== one.id && <code>{one.id}</code>}
            <small class="muted">{describe(one)}</small>
            <dl class="facts">
              <Fact name={t().size}>{bytes(one.bytes)}</Fact>
              <Fact name={t().context}>{t().tokens(number(one.context_length))}</Fact>
              <Fact name={t().signature}>{signed(signatureOf(one.id))}</Fact>
              <Fact name={t().digest} code>
                {signatureOf(one.id)?.digest ?? null}
              </Fact>
              <Fact name={t().fingerprint} code>
                {signatureOf(one.id)?.fingerprint ?? null}
              </Fact>
            </dl>
          </div>
        ))}
      </section>
      <section class="card">
        <dl class="facts told">
          <Fact name={t().version}>{me.value?.version ?? ""}</Fact>
          <Fact name={t().licence}>{t().licenceText}</Fact>
          <Fact name={t().privacy}>{t().privacyText}</Fact>
        </dl>
      </section>
    </div>
  );
}
