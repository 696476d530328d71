// The state of one run as its events tell it. Pure: no clock but the one handed in, no network.
import type { ServerEvent } from "./sse.ts";
import type { QueuePlace, RunEnd } from "./types.ts";

export interface RunState {
  /** Sequence number of the last event applied; the next must be one more. */
  seq: number;
  phase: "waiting" | "queued" | "thinking" | "answering" | "ended";
  queue: QueuePlace | null;
  model: string | null;
  reasoning: string;
  content: string;
  /** When thinking began and ended, in ms of the clock that was handed in. */
  thinkingSince: number | null;
  thinkingMs: number | null;
  end: RunEnd | null;
}

export function newRun(): RunState {
  return {
    seq: 0, phase: "waiting", queue: null, model: null, reasoning: "", content: "",
    thinkingSince: null, thinkingMs: null, end: null,
  };
}

/** Thrown when an event is missing: the caller reconnects after `seq`. */
export class Gap extends Error {}

/** Applies one event. A repeated one changes nothing, a skipped one is a Gap. */
export function applyEvent(state: RunState, event: ServerEvent, nowMs: number): RunState {
  const seq = Number(event.id);
  if (!Number.isInteger(seq) || seq < 1) throw new Gap(`event id "${event.id}" is no sequence number`);
  if (seq <= state.seq) return state;
  if (seq !== state.seq + 1) throw new Gap(`event ${seq} follows ${state.seq}`);
  return { ...change(state, event.event, JSON.parse(event.data), nowMs), seq };
}

function change(state: RunState, kind: string, data: unknown, nowMs: number): RunState {
  switch (kind) {
    case "queue":
      return { ...state, phase: "queued", queue: data as QueuePlace };
    case "start":
      return { ...state, phase: "waiting", queue: null, model: (data as { model?: string }).model ?? null };
    case "delta":
      return addDelta(state, data as { reasoning?: string | null; content?: string | null }, nowMs);
    case "end":
      return { ...state, phase: "ended", queue: null, end: data as RunEnd, ...thinkingEnded(state, nowMs) };
    default:
      return state; // an event of a later version
  }
}

function addDelta(
  state: RunState,
  delta: { reasoning?: string | null; content?: string | null },
  nowMs: number,
): RunState {
  let next: RunState = { ...state, queue: null };
  if (delta.reasoning) {
    next.reasoning += delta.reasoning;
    next.thinkingSince ??= nowMs;
    if (!next.content) next.phase = "thinking";
  }
  if (delta.content) {
    next = { ...next, phase: "answering", content: next.content + delta.content, ...thinkingEnded(next, nowMs) };
  }
  return next;
}

function thinkingEnded(state: RunState, nowMs: number): Partial<RunState> {
  if (state.thinkingSince === null || state.thinkingMs !== null) return {};
  return { thinkingMs: nowMs - state.thinkingSince };
}
