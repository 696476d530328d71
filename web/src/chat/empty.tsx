// Before the first message: a greeting and four ways to begin.
import type { VNode } from "preact";
import { mayChat, me } from "../core/session.ts";
import { hrefOf } from "../core/router.ts";
import { language, t } from "../i18n/index.ts";
import { Icon, Mark, type IconName } from "../ui/icon.tsx";
import { submitText } from "./composer.tsx";

interface Suggestion {
  icon: IconName;
  title: string;
  hint: string;
  prompt: string;
}

function suggestions(): Suggestion[] {
  const words = t();
  return [
    { icon: "play", title: words.suggestBall, hint: words.suggestBallHint, prompt: words.suggestBallPrompt },
    { icon: "spark", title: words.suggestTriangle, hint: words.suggestTriangleHint, prompt: words.suggestTrianglePrompt },
    { icon: "cap", title: words.suggestMaths, hint: words.suggestMathsHint, prompt: words.suggestMathsPrompt },
    { icon: "bulb", title: words.suggestExplain, hint: words.suggestExplainHint, prompt: words.suggestExplainPrompt },
  ];
}

export function Empty(): VNode {
  return (
    <div class="empty-state" lang={language.value}>
      <Mark size={56} />
      <h1>{t().greeting}</h1>
      <p>{t().greetingHint}</p>
      {me.value && !mayChat.value ? (
        <a class="button primary" href={hrefOf("signin")}>
          {t().needSignIn}
        </a>
      ) : (
        <div class="suggestions">
          {suggestions().map((one) => (
            <button key={one.title} type="button" class="suggestion" onClick={() => submitText(one.prompt)}>
              <Icon name={one.icon} />
              <span>
                <strong>{one.title}</strong>
                <small>{one.hint}</small>
              </span>
            </button>
          ))}
        </div>
      )}
    </div>
  );
}
