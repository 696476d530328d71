// A prompt sent from a page other than the chat: kept as a conversation like any other.
import { signal, type Signal } from "@preact/signals";
import { api } from "../core/api.ts";
import { LiveRun } from "../core/live.ts";
import type { RunState } from "../core/run.ts";
import { effort, thinking } from "../core/settings.ts";
import type { Model } from "../core/types.ts";

export interface Asked {
  conversationId: string;
  userMessageId: string;
  run: LiveRun;
  /** The last state once the run has ended. */
  ended: Signal<RunState | null>;
}

/** Asks a model; with `under`, answers a message that is already there. */
export async function ask(content: string, model: Model, under?: Asked): Promise<Asked> {
  const conversationId = under?.conversationId ?? (await api.createConversation()).id;
  const started = await api.startRun(conversationId, {
    parent_id: under?.userMessageId ?? null,
    content: under ? null : content,
    model: model.id,
    thinking: thinking.value && model.thinking,
    effort: effort.value,
  });
  const ended = signal<RunState | null>(null);
  const run = new LiveRun(started.run_id, (state) => (ended.value = state), false);
  const userMessageId = started.user_message?.id ?? under?.userMessageId ?? "";
  return { conversationId, userMessageId, run, ended };
}
