// What an answer took: a line under it, the whole table on a click.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { money, number, seconds, short } from "../core/format.ts";
import type { Usage } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { Dialog } from "../ui/dialog.tsx";

/** Tokens a second of decoding: the wait for the first token is not part of it. */
export function speedOf(usage: Usage): number | null {
  const decoding = usage.seconds - (usage.first_token_seconds ?? 0);
  return decoding > 0 && usage.completion_tokens > 1 ? (usage.completion_tokens - 1) / decoding : null;
}

export function costOf(usage: Usage): string {
  return usage.cost ? money(usage.cost, usage.currency ?? "USD") : t().free;
}

export function UsageLine({ usage, model }: { usage: Usage; model: string | null }): VNode {
  const [isOpen, setOpen] = useState(false);
  const speed = speedOf(usage);
  const parts = [t().usageTokens(short(usage.prompt_tokens), short(usage.completion_tokens))];
  if (usage.cached_tokens > 0 && usage.prompt_tokens > 0) {
    parts.push(t().usageCached(`${Math.round((100 * usage.cached_tokens) / usage.prompt_tokens)}%`));
  }
  if (speed !== null) parts.push(t().usageSpeed(number(speed, speed < 10 ? 1 : 0)));
  if (usage.cost) parts.push(costOf(usage));
  return (
    <>
      <button type="button" class="usage-line" title={t().usageDetails} onClick={() => setOpen(true)}>
        {parts.join(" · ")}
      </button>
      {isOpen && (
        <Dialog title={t().usageDetails} onClose={() => setOpen(false)}>
          <UsageTable usage={usage} model={model} />
        </Dialog>
      )}
    </>
  );
}

function UsageTable({ usage, model }: { usage: Usage; model: string | null }): VNode {
  const speed = speedOf(usage);
  const rows: [string, string][] = [
    [t().model, model ?? ""],
    [t().promptTokens, number(usage.prompt_tokens)],
    [t().cachedTokens, number(usage.cached_tokens)],
    [t().completionTokens, number(usage.completion_tokens)],
    [t().reasoningTokens, number(usage.reasoning_tokens)],
    [t().firstToken, usage.first_token_seconds === null ? "" : seconds(usage.first_token_seconds)],
    [t().total, seconds(usage.seconds)],
    [t().speed, speed === null ? "" : t().usageSpeed(number(speed, 1))],
    [t().cost, costOf(usage)],
  ];
  return (
    <dl class="facts">
      {rows
        .filter(([, value]) => value !== "")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}
