// Follows one run: connects, reconnects after the last event it has, and shows what arrived once a
// frame. It may be dropped and made anew at any time; the server keeps the text.
import { signal } from "@preact/signals";
import { api, ApiError, apiUrl, toApiError } from "./api.ts";
import { applyEvent, Gap, newRun, type RunState } from "./run.ts";
import { EventParser } from "./sse.ts";

const SILENCE_MS = 40_000; // keep-alives come far more often
const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 8_000;
const REPLAY_MS = 600;
const SHOW_MS = 24; // every second frame: text reads as smoothly, and costs half
const SHOW_HIDDEN_MS = 200;

export class LiveRun {
  readonly state = signal<RunState>(newRun());
  readonly isLost = signal(false);
  readonly isStopping = signal(false);
  private pending: RunState = this.state.value;
  private isShowing = false;
  private shownAt = 0;
  private isClosed = false;
  private attempt: AbortController | null = null;
  private wake: (() => void) | null = null;

  constructor(
    readonly id: string,
    private readonly onEnd: (state: RunState) => void,
    /** True where the run began before this page: how long it thought is then not known here. */
    private readonly isResumed: boolean,
  ) {
    addEventListener("online", this.reconnectNow);
    document.addEventListener("visibilitychange", this.reconnectNow);
    void this.follow();
  }

  async stop(): Promise<void> {
    if (this.isStopping.value) return;
    this.isStopping.value = true;
    try {
      await api.stopRun(this.id);
    } catch (error) {
      this.isStopping.value = false;
      throw error;
    }
  }

  close(): void {
    this.isClosed = true;
    this.attempt?.abort();
    this.wake?.();
    removeEventListener("online", this.reconnectNow);
    document.removeEventListener("visibilitychange", this.reconnectNow);
  }

  private readonly reconnectNow = (): void => {
    if (document.visibilityState === "visible") this.wake?.();
  };

  private async follow(): Promise<void> {
    let wait = FIRST_WAIT_MS;
    while (!this.isClosed && this.pending.phase !== "ended") {
      const before = this.pending.seq;
      try {
        await this.connect();
      } catch (error) {
        if (this.isClosed) return;
        if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429) {
          this.giveUp(error);
          return;
        }
        if (!(error instanceof Gap)) this.isLost.value = true;
      }
      if (this.isClosed || this.phase() === "ended") break;
      wait = this.pending.seq > before ? FIRST_WAIT_MS : Math.min(LONGEST_WAIT_MS, wait * 2);
      await this.pause(wait);
    }
    this.isLost.value = false;
  }

  private phase(): RunState["phase"] {
    return this.pending.phase;
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  private async connect(): Promise<void> {
    const attempt = (this.attempt = new AbortController());
    const { seq } = this.pending;
    let silence = setTimeout(() => attempt.abort(), SILENCE_MS);
    try {
      const response = await fetch(apiUrl(`runs/${encodeURIComponent(this.id)}/events`), {
        headers: { Accept: "text/event-stream", ...(seq > 0 ? { "Last-Event-ID": String(seq) } : {}) },
        credentials: "same-origin",
        cache: "no-store",
        signal: attempt.signal,
      });
      if (!response.ok || !response.body) throw await toApiError(response);
      this.isLost.value = false;
      const replayUntil = this.isResumed && seq === 0 ? performance.now() + REPLAY_MS : 0;
      const parser = new EventParser();
      const decoder = new TextDecoder();
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(() => attempt.abort(), SILENCE_MS);
        for (const event of parser.feed(decoder.decode(value, { stream: true }))) {
          const now = performance.now();
          this.pending = applyEvent(this.pending, event, now);
          if (now < replayUntil && this.pending.thinkingMs !== null) this.pending.thinkingMs = -1;
          this.show();
          if (this.pending.phase === "ended") return;
        }
      }
    } finally {
      clearTimeout(silence);
      attempt.abort();
    }
  }

  private giveUp(error: ApiError): void {
    const end = { state: "error", finish_reason: null, usage: null, error: { code: error.code, message: error.message } } as const;
    this.pending = { ...this.pending, phase: "ended", queue: null, end };
    this.show();
  }

  private show(): void {
    if (this.isShowing) return;
    this.isShowing = true;
    const flush = (): void => {
      this.isShowing = false;
      if (this.isClosed) return;
      this.shownAt = performance.now();
      this.state.value = this.pending;
      if (this.pending.phase !== "ended") return;
      this.onEnd(this.pending);
      this.close();
    };
    // A hidden page draws no frames.
    const soon = (): unknown => (document.hidden ? flush() : requestAnimationFrame(flush));
    setTimeout(soon, document.hidden ? SHOW_HIDDEN_MS : this.shownAt + SHOW_MS - performance.now());
  }
}
