// The conversations: the list of them, the open one, and the runs that are being followed.
import { batch, computed, signal } from "@preact/signals";
import { api, ApiError } from "../core/api.ts";
import { LiveRun } from "../core/live.ts";
import { go } from "../core/router.ts";
import type { RunState } from "../core/run.ts";
import { explain, loadModels, model } from "../core/session.ts";
import { effort, thinking } from "../core/settings.ts";
import { parentKey, pathOf } from "../core/tree.ts";
import type { Conversation, ConversationItem, Message, RunStarted } from "../core/types.ts";
import { t } from "../i18n/index.ts";
import { announce, toast } from "../ui/toast.tsx";

export const items = signal<ConversationItem[]>([]);
export const cursor = signal<string | null>(null);
export const query = signal("");
export const current = signal<Conversation | null>(null);
export const isMissing = signal(false);
export const draft = signal("");
export const chosen = signal<ReadonlyMap<string, string>>(new Map());
export const runs = signal<ReadonlyMap<string, LiveRun>>(new Map());
/** How long a run thought, in ms, for those that this page watched. */
export const thinkingTimes = signal<ReadonlyMap<string, number>>(new Map());

export const path = computed(() => (current.value ? pathOf(current.value.messages, chosen.value) : []));
export const activeRun = computed<LiveRun | null>(() => {
  const last = path.value.at(-1)?.message;
  return (last?.run_id && runs.value.get(last.run_id)) || null;
});

const tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("rorqual") : null;
tabs?.addEventListener("message", () => void refreshList());

let listing: AbortController | null = null;

export async function refreshList(): Promise<void> {
  listing?.abort();
  const mine = (listing = new AbortController());
  try {
    const page = await api.conversations(query.value, null, mine.signal);
    if (mine.signal.aborted) return; // a newer listing is under way
    batch(() => {
      items.value = page.items;
      cursor.value = page.cursor;
    });
  } catch (error) {
    if (!mine.signal.aborted) toast(explain(error), "error");
  }
}

export async function loadMore(): Promise<void> {
  if (!cursor.value) return;
  const under = listing?.signal;
  const page = await api.conversations(query.value, cursor.value, under);
  if (under?.aborted) return; // of another search than the one shown now
  const known = new Set(items.value.map((item) => item.id));
  items.value = [...items.value, ...page.items.filter((item) => !known.has(item.id))];
  cursor.value = page.cursor;
}

function changed(): void {
  tabs?.postMessage("changed");
  void refreshList();
}

let wanted: string | null = null;
/** Done when the conversation that was asked for is there: before, nothing has a place in it. */
export let opening: Promise<void> = Promise.resolve();

/** Shows a conversation; of several asked for quickly, the last. */
export function open(id: string | null): Promise<void> {
  wanted = id;
  opening = load(id);
  return opening;
}

async function load(id: string | null): Promise<void> {
  if (id !== null && current.value?.id === id) return;
  batch(() => {
    isMissing.value = false;
    current.value = null;
    chosen.value = new Map();
  });
  if (id === null) return;
  try {
    const conversation = await api.conversation(id);
    if (wanted !== id) return;
    current.value = conversation;
    for (const message of conversation.messages) {
      if (message.state === "streaming" && message.run_id) follow(message.run_id, conversation.id, message.id, true);
    }
  } catch (error) {
    if (wanted !== id) return;
    if (error instanceof ApiError && error.status === 404) isMissing.value = true;
    else toast(explain(error), "error");
  }
}

export async function rename(id: string, title: string): Promise<void> {
  await api.rename(id, title);
  if (current.value?.id === id) current.value = { ...current.value, title };
  changed();
}

export async function remove(id: string): Promise<void> {
  await api.remove(id);
  if (current.value?.id === id) go("chat");
  changed();
}

/** Sends a message under a parent; `null` content answers the parent once more. False if refused. */
export async function send(content: string | null, parentId: string | null): Promise<boolean> {
  if (!model.value) await loadModels().catch(() => undefined); // sent before they were told
  const served = model.value;
  if (!served) {
    toast(t().noModels, "error");
    return false;
  }
  try {
    const conversation = current.value ?? (await create());
    const request = { parent_id: parentId, content, model: served.id, thinking: thinking.value && served.thinking, effort: effort.value };
    const started = await api.startRun(conversation.id, request);
    take(conversation.id, started);
    announce(t().thinkingNow);
    return true;
  } catch (error) {
    toast(explain(error), "error");
    return false;
  }
}

async function create(): Promise<Conversation> {
  const item = await api.createConversation();
  const conversation = { ...item, messages: [] };
  wanted = item.id;
  current.value = conversation;
  go("chat", item.id);
  return conversation;
}

function take(conversationId: string, started: RunStarted): void {
  const fresh = [started.user_message, started.assistant_message].filter((message) => message !== null);
  batch(() => {
    if (current.value?.id === conversationId) {
      current.value = { ...current.value, messages: [...current.value.messages, ...fresh] };
      const next = new Map(chosen.value);
      for (const message of fresh) next.set(parentKey(message), message.id);
      chosen.value = next;
    }
    follow(started.run_id, conversationId, started.assistant_message.id, false);
  });
  changed();
}

function follow(runId: string, conversationId: string, messageId: string, isResumed: boolean): void {
  if (runs.value.has(runId)) return;
  const run = new LiveRun(runId, (state) => finish(runId, conversationId, messageId, state), isResumed);
  runs.value = new Map(runs.value).set(runId, run);
}

function finish(runId: string, conversationId: string, messageId: string, state: RunState): void {
  const { end } = state;
  batch(() => {
    if (state.thinkingMs !== null && state.thinkingMs >= 0) {
      thinkingTimes.value = new Map(thinkingTimes.value).set(messageId, state.thinkingMs);
    }
    if (current.value?.id === conversationId && end) {
      const change = (message: Message): Message =>
        message.id !== messageId
          ? message
          : { ...message, content: state.content, reasoning: state.reasoning, model: state.model ?? message.model, state: end.state, usage: end.usage, error: end.error };
      current.value = { ...current.value, messages: current.value.messages.map(change) };
    }
    const left = new Map(runs.value);
    left.delete(runId);
    runs.value = left;
  });
  announce(end?.state === "complete" ? t().answerReady : t().stopped);
  changed();
}

export async function stop(): Promise<void> {
  try {
    await activeRun.value?.stop();
  } catch (error) {
    toast(explain(error), "error");
  }
}

/** Shows another version of a message. */
export function choose(message: Message, id: string): void {
  chosen.value = new Map(chosen.value).set(parentKey(message), id);
}

export function lastAnswer(): string | null {
  const last = path.value.findLast((step) => step.message.role === "assistant");
  return last?.message.content ?? null;
}
