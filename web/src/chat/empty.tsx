// Before the first message: a greeting and four ways to begin.
import type { VNode } from "preact";
import demonstrations from "../examples/demonstrations.json";
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

function promptFor(ball: string, program: string): string {
  const fitting = demonstrations.filter((one) => one.program === program && one.ball === ball);
  return (fitting[0] ?? demonstrations[0]!).prompt;
}

function suggestions(): Suggestion[] {
  const words = t();
  return [
    { icon: "play", title: words.suggestBall, hint: words.suggestBallHint, prompt: promptFor("yellow", "javascript") },
    { icon: "spark", title: words.suggestTriangle, hint: words.suggestTriangleHint, prompt: promptFor("red", "python") },
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
