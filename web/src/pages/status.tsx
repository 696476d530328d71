// Is it up, and how busy is it? Public.
import "../styles/pages.css";
import type { VNode } from "preact";
import { api } from "../core/api.ts";
import { number } from "../core/format.ts";
import type { EngineStatus } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { levelName } from "../ui/level.ts";
import { Stat } from "./stat.tsx";
import { useLoaded } from "./use.ts";

function headline(status: EngineStatus): { text: string; tone: string } {
  switch (status.engine) {
    case "ready":
      return status.level === "normal" ? { text: t().engineReady, tone: "good" } : { text: levelName(status.level), tone: "warm" };
    case "loading":
      return { text: t().engineLoading, tone: "warm" };
    case "restarting":
      return { text: t().engineRestarting, tone: "warm" };
    case "down":
      return { text: t().engineDown, tone: "bad" };
  }
}

export default function Status(): VNode {
  const { value, error } = useLoaded((signal) => api.status(signal), 4000);
  const head = error || !value ? { text: error ? t().unreachable : t().loading, tone: error ? "bad" : "" } : headline(value);
  return (
    <div class="page narrow">
      <section class={`card headline ${head.tone}`} role="status">
        <span class="lamp" />
        <h2>{head.text}</h2>
      </section>
      {value && !error && (
        <section class="stat-row">
          <Stat name={t().runningNow} value={number(value.running)} />
          <Stat name={t().waitingNow} value={number(value.waiting)} />
          <Stat name={t().tokensPerSecond} value={number(value.tokens_per_second, 1)} />
        </section>
      )}
      <p class="muted small">{t().updatedEvery}</p>
    </div>
  );
}
