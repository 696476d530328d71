// Keys, usage, balance, and how to begin with the API.
import "../styles/pages.css";
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { api } from "../core/api.ts";
import { date, day, money, number, short } from "../core/format.ts";
import { hrefOf } from "../core/router.ts";
import { explain, me } from "../core/session.ts";
import type { ApiKey, UsageReport, UsageRow } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { CopyButton } from "../ui/copy.tsx";
import { Confirm, Dialog } from "../ui/dialog.tsx";
import { Icon, Mark } from "../ui/icon.tsx";
import { toast } from "../ui/toast.tsx";
import { QuickStart } from "./quickstart.tsx";
import { Stat } from "./stat.tsx";
import { useLoaded } from "./use.ts";

export default function Account(): VNode {
  const [secret, setSecret] = useState<string | null>(null);
  if (!me.value) return <div class="page muted">{t().loading}</div>;
  if (me.value.mode === "local") {
    return (
      <div class="page">
        <p class="notice quiet">{t().platformOnly}</p>
        <QuickStart secret={null} />
      </div>
    );
  }
  if (!me.value.user) {
    return (
      <div class="page closed">
        <Mark size={44} />
        <p class="lead">{t().accountSignIn}</p>
        <a class="button primary" href={hrefOf("signin")}>
          {t().signIn}
        </a>
      </div>
    );
  }
  return (
    <div class="page">
      <BalanceCards />
      <Keys onSecret={setSecret} />
      <QuickStart secret={secret} />
      <UsageSection />
      {secret && (
        <Dialog title={t().newKey} onClose={() => undefined}>
          <p>{t().keyOnce}</p>
          <div class="secret">
            <code>{secret}</code>
            <CopyButton text={secret} />
          </div>
        </Dialog>
      )}
    </div>
  );
}

function BalanceCards(): VNode {
  const { value, error } = useLoaded(() => api.balance(), 15_000);
  if (error) return <p class="notice error">{error}</p>;
  const cards: [string, number | undefined][] = [
    [t().balance, value?.balance],
    [t().reserved, value?.reserved],
    [t().spent, value?.spent],
  ];
  return (
    <section class="stat-row" aria-label={t().balance}>
      {cards.map(([name, amount]) => (
        <Stat key={name} name={name} value={value && amount !== undefined ? money(amount, value.currency) : "…"} />
      ))}
    </section>
  );
}

function Keys({ onSecret }: { onSecret: (secret: string) => void }): VNode {
  const { value, error, reload } = useLoaded(() => api.keys(), null);
  const [isMaking, setMaking] = useState(false);
  const [revoking, setRevoking] = useState<ApiKey | null>(null);
  const revoke = async (key: ApiKey): Promise<void> => {
    try {
      await api.revokeKey(key.id);
    } catch (failure) {
      toast(explain(failure), "error");
    }
    reload();
  };
  return (
    <section class="card">
      <header class="card-head">
        <h2>{t().keys}</h2>
        <button type="button" class="button slim" onClick={() => setMaking(true)}>
          <Icon name="plus" />
          {t().newKey}
        </button>
      </header>
      {error && <p class="notice error">{error}</p>}
      {value?.keys.length === 0 && <p class="muted">{t().noKeys}</p>}
      <ul class="rows">
        {value?.keys.map((key) => (
          <KeyRow key={key.id} entry={key} onRevoke={() => setRevoking(key)} />
        ))}
      </ul>
      {isMaking && (
        <NewKey
          onClose={() => setMaking(false)}
          onMade={(secret) => {
            setMaking(false);
            onSecret(secret);
            reload();
          }}
        />
      )}
      {revoking && <Confirm question={t().revokeQuestion(revoking.name)} action={t().revoke} onYes={() => void revoke(revoking)} onClose={() => setRevoking(null)} />}
    </section>
  );
}

function KeyRow({ entry, onRevoke }: { entry: ApiKey; onRevoke: () => void }): VNode {
  const facts = [
    `${t().keyCreated} ${date(entry.created)}`,
    entry.last_used ? `${t().keyUsed} ${date(entry.last_used)}` : t().keyUnused,
    ...(entry.expires ? [`${t().keyExpires} ${date(entry.expires)}`] : []),
  ];
  return (
    <li class={entry.revoked ? "row faded" : "row"}>
      <div class="row-main">
        <strong>{entry.name}</strong> <code>{`${entry.start}…${entry.last4}`}</code>
        <small class="muted">{facts.map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ")}</small>
      </div>
      {entry.revoked ? (
        <span class="badge">{t().revoked}</span>
      ) : (
        <button type="button" class="button slim" onClick={onRevoke}>
          {t().revoke}
        </button>
      )}
    </li>
  );
}

function NewKey({ onMade, onClose }: { onMade: (secret: string) => void; onClose: () => void }): VNode {
  const [name, setName] = useState("");
  const [days, setDays] = useState("90");
  const [cap, setCap] = useState("");
  const make = async (event: Event): Promise<void> => {
    event.preventDefault();
    const expires = days ? { expires: new Date(Date.now() + Number(days) * 86_400_000).toISOString() } : {};
    const limit = cap ? { cap: Math.round(Number(cap) * 1e9) } : {};
    try {
      onMade((await api.createKey({ name, ...expires, ...limit })).secret);
    } catch (failure) {
      toast(explain(failure), "error");
    }
  };
  return (
    <Dialog title={t().newKey} onClose={onClose}>
      <form class="form" onSubmit={(event) => void make(event)}>
        <label class="field">
          <span>{t().keyName}</span>
          <input class="input" required maxLength={80} value={name} onInput={(event) => setName(event.currentTarget.value)} autoFocus />
        </label>
        <label class="field">
          <span>{t().expiresIn}</span>
          <select class="input" value={days} onChange={(event) => setDays(event.currentTarget.value)}>
            {[30, 90, 365].map((count) => (
              <option key={count} value={String(count)}>
                {t().days(count)}
              </option>
            ))}
            <option value="">{t().noExpiry}</option>
          </select>
        </label>
        <label class="field">
          <span>{t().cap}</span>
          <input class="input" type="number" min="0" step="any" placeholder={t().capHint} value={cap} onInput={(event) => setCap(event.currentTarget.value)} />
        </label>
        <button type="submit" class="button primary">
          {t().newKey}
        </button>
      </form>
    </Dialog>
  );
}

function UsageSection(): VNode {
  const [days, setDays] = useState(30);
  const { value, error } = useLoaded(() => api.usage(days), null, [days]);
  return (
    <section class="card">
      <header class="card-head">
        <h2>{t().usage}</h2>
        <select class="input slim" aria-label={t().usage} value={String(days)} onChange={(event) => setDays(Number(event.currentTarget.value))}>
          {[7, 30, 90].map((count) => (
            <option key={count} value={String(count)}>
              {t().usageDays(count)}
            </option>
          ))}
        </select>
      </header>
      {error && <p class="notice error">{error}</p>}
      {value && (value.rows.length > 0 ? <UsageTable report={value} /> : <p class="muted">{t().noUsage}</p>)}
    </section>
  );
}

const COUNTS = [
  { name: "requests", of: (row: UsageRow) => number(row.requests) },
  { name: "inputTokens", of: (row: UsageRow) => short(row.input_tokens) },
  { name: "cachedInput", of: (row: UsageRow) => short(row.cached_tokens) },
  { name: "outputTokens", of: (row: UsageRow) => short(row.output_tokens) },
] as const;

function UsageTable({ report }: { report: UsageReport }): VNode {
  const most = Math.max(...report.rows.map((row) => row.cost), 1);
  return (
    <div class="table-scroll" role="region" aria-label={t().usage} tabIndex={0}>
      <table class="table">
        <thead>
          <tr>
            <th>{t().day}</th>
            <th>{t().model}</th>
            {COUNTS.map(({ name }) => (
              <th key={name} class="number">
                {t()[name]}
              </th>
            ))}
            <th class="number" colSpan={2}>
              {t().cost}
            </th>
          </tr>
        </thead>
        <tbody>
          {report.rows.map((row) => (
            <tr key={`${row.day} ${row.model} ${row.key_id ?? ""}`}>
              <td class="day">{day(row.day)}</td>
              <td class="model">{row.model}</td>
              {COUNTS.map(({ name, of }) => (
                <td key={name} class="number" data-name={t()[name]}>
                  {of(row)}
                </td>
              ))}
              <td class="share">
                <meter class="bar" max={most} value={row.cost} aria-hidden="true" />
              </td>
              <td class="number cost">{money(row.cost, report.currency)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
