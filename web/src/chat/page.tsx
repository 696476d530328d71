// The chat page: the thread, and the preview beside it when something runs.
import type { VNode } from "preact";
import { useLayoutEffect, useState } from "preact/hooks";
import { lazy } from "../ui/lazy.tsx";
import { shown } from "../preview/state.ts";
import { Thread } from "./thread.tsx";
import { open } from "./store.ts";

const PreviewPane = lazy(() => import("../preview/pane.tsx"));

export function ChatPage({ id }: { id: string | null }): VNode {
  const [isLoading, setLoading] = useState(id !== null);
  // In the same breath as the route: what is sent next must not land in the thread before.
  useLayoutEffect(() => {
    let isGone = false;
    setLoading(id !== null);
    shown.value = null;
    void open(id).then(() => isGone || setLoading(false));
    return () => {
      isGone = true;
    };
  }, [id]);
  return (
    <div class={shown.value ? "chat with-preview" : "chat"}>
      <Thread isLoading={isLoading} />
      {shown.value && (
        <PreviewPane shown={shown.value} onClose={() => (shown.value = null)} />
      )}
    </div>
  );
}
