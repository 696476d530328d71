// Sign in or sign up, with the proof of work shown as progress.
import "../styles/pages.css";
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { api } from "../core/api.ts";
import { short } from "../core/format.ts";
import { solve, type Progress } from "../core/proof.ts";
import { go } from "../core/router.ts";
import { explain, loadModels, me } from "../core/session.ts";
import { t } from "../i18n/index.ts";
import { Mark } from "../ui/icon.tsx";
import { toast } from "../ui/toast.tsx";

export default function SignIn(): VNode {
  const [isNew, setNew] = useState(false);
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [progress, setProgress] = useState<Progress | null>(null);
  const [error, setError] = useState("");
  const isClosed = me.value?.registration === "closed";

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setError("");
    try {
      const proof = await solve(isNew ? "register" : "login", name, setProgress);
      me.value = await (isNew ? api.register(name, password, proof) : api.signIn(name, password, proof));
      go("chat"); // at once: who has gone on to another page is not fetched back
      loadModels().catch((failure: unknown) => toast(explain(failure), "error"));
    } catch (failure) {
      setError(explain(failure));
    } finally {
      setProgress(null);
    }
  };
  return (
    <div class="page narrow">
      <form class="card sign-in" onSubmit={(event) => void submit(event)}>
        <Mark size={44} />
        <h2>{isNew ? t().createAccount : t().signIn}</h2>
        <label class="field">
          <span>{t().name}</span>
          <input class="input" name="username" autocomplete="username" required value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </label>
        <label class="field">
          <span>{t().password}</span>
          <input class="input" name="password" type="password" autocomplete={isNew ? "new-password" : "current-password"} minLength={isNew ? 10 : 1} required value={password} onInput={(event) => setPassword(event.currentTarget.value)} />
          {isNew && <small class="muted">{t().passwordHint}</small>}
        </label>
        {progress && <Work progress={progress} />}
        {error && (
          <p class="notice error" role="alert">
            {error}
          </p>
        )}
        <button type="submit" class="button primary" disabled={progress !== null || (isNew && isClosed)}>
          {isNew ? t().createAccount : t().signIn}
        </button>
        {isClosed && isNew && <p class="notice">{t().registrationClosed}</p>}
        <button type="button" class="button quiet" onClick={() => setNew(!isNew)}>
          {isNew ? t().haveAccount : t().noAccount}
        </button>
      </form>
    </div>
  );
}

/** The chance that the work would be done by now: honest about something that has no end in sight. */
function Work({ progress }: { progress: Progress }): VNode {
  const share = 1 - Math.exp(-progress.tried / progress.expected);
  return (
    <div class="work" role="status">
      <progress max={1} value={share} aria-label={t().working} />
      <small class="muted">
        {t().working} · {t().attempts(short(progress.tried))}
      </small>
    </div>
  );
}
