// A component that is fetched when it is first shown.
import type { ComponentType, VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n/index.ts";

type Load<P> = () => Promise<{ default: ComponentType<P> }>;

export function lazy<P extends object>(load: Load<P>): (props: P) => VNode {
  let loaded: ComponentType<P> | null = null;
  return function Lazy(props: P): VNode {
    const [state, setState] = useState<"loading" | "ready" | "failed">(loaded ? "ready" : "loading");
    useEffect(() => {
      if (loaded) return;
      let isGone = false;
      load().then(
        (module) => {
          loaded = module.default;
          if (!isGone) setState("ready");
        },
        () => isGone || setState("failed"),
      );
      return () => {
        isGone = true;
      };
    }, []);
    if (state === "failed") return <Failed />;
    const Content = loaded;
    return Content ? <Content {...props} /> : <p class="muted page">{t().loading}</p>;
  };
}

/** A file of an older version that is gone, or no network: the page itself has to come anew. */
function Failed(): VNode {
  return (
    <p class="page">
      {t().unreachable}{" "}
      <button type="button" class="button slim" onClick={() => location.reload()}>
        {t().retry}
      </button>
    </p>
  );
}
