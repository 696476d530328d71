// For those who run the server: load, queue, engine, the overload ladder, accounts.
import "../styles/pages.css";
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { api } from "../core/api.ts";
import { money, number, seconds, short } from "../core/format.ts";
import { explain, isAdmin, me } from "../core/session.ts";
import { LEVELS, type AdminUser, type Level, type Overview } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { Ask } from "../ui/dialog.tsx";
import { levelName } from "../ui/level.ts";
import { toast } from "../ui/toast.tsx";
import { Stat } from "./stat.tsx";
import { useLoaded } from "./use.ts";

export default function Admin(): VNode {
  const { value, error, reload } = useLoaded((signal) => api.overview(signal), 4000);
  if (!isAdmin.value) {
    return (
      <div class="page">
        <p class="notice">{t().adminOnly}</p>
      </div>
    );
  }
  return (
    <div class="page">
      <p class="lead">{t().adminLead}</p>
      {error && <p class="notice error">{error}</p>}
      {value && <Ladder overview={value} onChange={reload} />}
      {value && <Facts overview={value} />}
      {me.value?.mode === "platform" && <Users count={value?.accounts ?? null} />}
    </div>
  );
}

function Ladder({ overview, onChange }: { overview: Overview; onChange: () => void }): VNode {
  const current = overview.level;
  const isAutomatic = overview.held_level === null;
  const set = async (level: Level | "auto"): Promise<void> => {
    try {
      await api.setLevel(level);
    } catch (failure) {
      toast(explain(failure), "error");
    }
    onChange();
  };
  return (
    <section class="card">
      <header class="card-head">
        <h2>{t().ladder}</h2>
        <button type="button" class={isAutomatic ? "chip on" : "chip"} role="switch" aria-checked={isAutomatic} onClick={() => void set(isAutomatic ? current : "auto")}>
          {t().automatic}
        </button>
      </header>
      <ol class="ladder">
        {LEVELS.map((level, index) => (
          <li key={level}>
            <button type="button" class={level === current ? "rung current" : "rung"} aria-pressed={level === current} onClick={() => void set(level)}>
              <span>{index + 1}</span>
              {levelName(level)}
            </button>
          </li>
        ))}
      </ol>
    </section>
  );
}

function Facts({ overview }: { overview: Overview }): VNode {
  const { load, queue, engines } = overview;
  return (
    <>
      <section class="stat-row three" aria-label={t().queue}>
        <Stat name={t().load} value={`${number(100 * load)}%`} />
        <Stat name={t().runningNow} value={number(queue.running)} />
        <Stat name={t().waitingNow} value={number(queue.waiting)} />
        <Stat name={t().queuedTokens} value={short(queue.tokens)} />
        <Stat name={t().waitTime} value={seconds(queue.wait_seconds)} />
        <Stat name={t().tokensPerSecond} value={number(queue.tokens_per_second, 1)} />
      </section>
      <div class="card-grid">
        {engines.map((one) => (
          <Engine key={one.model} engine={one} />
        ))}
      </div>
    </>
  );
}

function Engine({ engine }: { engine: Overview["engines"][number] }): VNode {
  const words = { ready: t().stateReady, loading: t().stateLoading, restarting: t().stateRestarting, down: t().stateDown };
  const tones = { ready: "good", loading: "warm", restarting: "warm", down: "bad" };
  const facts: [string, number][] = [
    [t().runningNow, engine.running],
    [t().waitingNow, engine.waiting],
    [t().restarts, engine.restarts],
  ];
  return (
    <section class="card">
      <header class="card-head">
        <h2>{engine.model}</h2>
        <span class={`badge ${tones[engine.state]}`}>{words[engine.state]}</span>
      </header>
      <dl class="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{number(value)}</dd>
          </div>
        ))}
      </dl>
      {engine.last_error && <p class="notice error">{engine.last_error}</p>}
    </section>
  );
}

function Users({ count }: { count: number | null }): VNode {
  const [query, setQuery] = useState("");
  const { value, error, reload } = useLoaded(() => api.users(query), null, [query]);
  const [toppingUp, setToppingUp] = useState<AdminUser | null>(null);
  const act = async (work: Promise<void>): Promise<void> => {
    try {
      await work;
    } catch (failure) {
      toast(explain(failure), "error");
    }
    reload();
  };
  const users = value?.users ?? [];
  return (
    <section class="card">
      <header class="card-head">
        <h2>
          {t().accounts} {count !== null && <span class="badge">{number(count)}</span>}
        </h2>
        <input class="input slim" type="search" placeholder={t().searchAccounts} aria-label={t().searchAccounts} value={query} onInput={(event) => setQuery(event.currentTarget.value)} />
      </header>
      {error && <p class="notice error">{error}</p>}
      <ul class="rows">
        {users.map((user) => (
          <li class={user.locked ? "row faded" : "row"} key={user.id}>
            <div class="row-main">
              <strong>{user.name}</strong> {user.role === "admin" && <span class="badge accent">{t().admin}</span>}
              {user.balance !== undefined && <small class="muted">{money(user.balance, value?.currency ?? "USD")}</small>}
            </div>
            <div class="row-buttons">
              <button type="button" class="button slim" onClick={() => setToppingUp(user)}>
                {t().topUp}
              </button>
              <button type="button" class="button slim" onClick={() => void act(api.changeUser(user.id, { role: user.role === "admin" ? "user" : "admin" }))}>
                {user.role === "admin" ? t().makeUser : t().makeAdmin}
              </button>
              <button type="button" class="button slim" onClick={() => void act(api.changeUser(user.id, { locked: !user.locked }))}>
                {user.locked ? t().unlock : t().lock}
              </button>
            </div>
          </li>
        ))}
      </ul>
      {toppingUp && (
        <Ask
          title={`${t().topUpAmount}: ${toppingUp.name}`}
          value="5"
          onSave={(text) => Number(text) > 0 && void act(api.topUp(toppingUp.id, Math.round(Number(text) * 1e9)))}
          onClose={() => setToppingUp(null)}
        />
      )}
    </section>
  );
}
