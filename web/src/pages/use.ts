// Reading from the server in a page: loaded once, again on demand, or every few seconds.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { explain } from "../core/session.ts";

export interface Loaded<T> {
  value: T | null;
  error: string;
  reload: () => void;
}

/** `everyMs` null: once. A hidden page does not poll. */
export function useLoaded<T>(load: (signal: AbortSignal) => Promise<T>, everyMs: number | null, keys: readonly unknown[] = []): Loaded<T> {
  const [value, setValue] = useState<T | null>(null);
  const [error, setError] = useState("");
  const [turn, setTurn] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  useEffect(() => {
    const stop = new AbortController();
    const once = async (): Promise<void> => {
      try {
        const loaded = await latest.current(stop.signal);
        if (stop.signal.aborted) return;
        setValue(() => loaded);
        setError("");
      } catch (failure) {
        if (!stop.signal.aborted) setError(explain(failure));
      }
    };
    void once();
    const timer = everyMs === null ? null : setInterval(() => !document.hidden && void once(), everyMs);
    return () => {
      stop.abort();
      if (timer !== null) clearInterval(timer);
    };
  }, [turn, everyMs, ...keys]);
  const reload = useCallback(() => setTurn((count) => count + 1), []);
  return { value, error, reload };
}
