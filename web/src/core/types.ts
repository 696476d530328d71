// The shapes that cross the wire, as docs/app-api.md writes them.

export type Level = "normal" | "short_thinking" | "small_model" | "queue_only" | "closed";
export const LEVELS: readonly Level[] = ["normal", "short_thinking", "small_model", "queue_only", "closed"];

export interface User {
  id: string;
  name: string;
  role: "user" | "admin";
}

export interface Me {
  mode: "local" | "platform";
  user: User | null;
  registration: "open" | "closed";
  version: string;
  level: Level;
}

export interface Model {
  id: string;
  title: string;
  context_length: number;
  loaded: boolean;
  thinking: boolean;
  default: boolean;
  /** Not served yet; only who runs the server is told of such models. */
  fetchable: boolean;
  /** Whether its file is on the server's disk. */
  stored: boolean;
  /** Of the file; of the download where it is not stored. */
  bytes: number;
  fetch: ModelFetch | null;
}

export interface ModelFetch {
  state: "fetching" | "loading" | "failed";
  received: number;
  error: { code: string; message: string } | null;
}

/** Of /.well-known/release.json: what the server says of the files that it serves. */
export interface Release {
  models: { id: string; signature: Signature }[];
}

export interface Signature {
  state: "signed" | "local" | "unknown_key" | "changed" | "unsigned" | "elsewhere";
  signer: string | null;
  digest: string | null;
  fingerprint: string | null;
}

export interface EngineStatus {
  engine: "ready" | "loading" | "restarting" | "down";
  running: number;
  waiting: number;
  level: Level;
  tokens_per_second: number;
}

export interface Usage {
  prompt_tokens: number;
  cached_tokens: number;
  completion_tokens: number;
  reasoning_tokens: number;
  /** From the first thought to the first word of the answer; null without thinking. */
  thinking_seconds?: number | null;
  seconds: number;
  first_token_seconds: number | null;
  cost: number | null;
  currency?: string;
}

export type MessageState = "complete" | "streaming" | "stopped" | "interrupted" | "error";

export interface Message {
  id: string;
  parent_id: string | null;
  role: "user" | "assistant";
  content: string;
  reasoning: string | null;
  created: string;
  run_id: string | null;
  model: string | null;
  state: MessageState;
  usage: Usage | null;
  error: string | { code?: string; message: string } | null;
}

export interface ConversationItem {
  id: string;
  title: string;
  updated: string;
  model?: string | null;
}

export interface Conversation extends ConversationItem {
  messages: Message[];
}

export type Effort = "low" | "medium" | "high";

export interface RunRequest {
  parent_id: string | null;
  content: string | null;
  model: string;
  thinking: boolean;
  effort: Effort;
  max_tokens?: number;
  temperature?: number;
}

export interface RunStarted {
  run_id: string;
  user_message: Message | null;
  assistant_message: Message;
}

export interface QueuePlace {
  position: number;
  seconds: number | null;
}

export interface RunEnd {
  state: Exclude<MessageState, "streaming">;
  finish_reason: string | null;
  usage: Usage | null;
  error: Message["error"];
}

export interface Challenge {
  algorithm: "sha256";
  challenge: string;
  salt: string;
  /** Leading zero bits; 0: nothing to solve. */
  difficulty: number;
  expires: string | null;
  signature: string;
}

export interface Proof {
  challenge: string;
  number: number;
  signature: string;
}

export interface ApiKey {
  id: string;
  name: string;
  start: string;
  last4: string;
  created: string;
  expires: string | null;
  last_used: string | null;
  models: string[] | null;
  cap: number | null;
  spent: number;
  revoked: boolean | string | null;
}

export interface UsageRow {
  day: string;
  model: string;
  key_id: string | null;
  requests: number;
  input_tokens: number;
  cached_tokens: number;
  output_tokens: number;
  reasoning_tokens: number;
  cost: number;
}

export interface UsageReport {
  currency: string;
  rows: UsageRow[];
}

export interface Balance {
  currency: string;
  balance: number;
  reserved: number;
  spent: number;
}

export interface AdminUser {
  id: string;
  name: string;
  role: "user" | "admin";
  locked: boolean;
  created?: string;
  balance?: number;
}

export interface Overview {
  load: number;
  queue: { running: number; waiting: number; tokens: number; wait_seconds: number; tokens_per_second: number };
  engines: { model: string; state: EngineStatus["engine"]; running: number; waiting: number; restarts: number; last_error: string | null }[];
  accounts: number;
  level: Level;
  /** The rung that an admin holds; null while load decides. */
  held_level: Level | null;
}

export interface TutorFamily {
  name: string;
  title: { en: string; zh: string };
  levels: { level: number; grade: string | number | null }[];
}

export type Verdict = "verified" | "wrong" | "unverified";

export interface Verification {
  verdict: Verdict;
  kind: string | null;
  expected: string | null;
  steps: { text: string; verdict: Verdict }[];
}

export interface LabRun {
  id: string;
  kind: string;
  title: string;
  state: "running" | "done" | "stopped";
  step: number | null;
  updated: string;
}

export interface LabDetails {
  config: unknown;
  findings: string | (string | Record<string, unknown>)[] | null;
}

export interface LabMetrics {
  series: Record<string, [number, number][]>;
  state: LabRun["state"];
}

export interface LabSamples {
  steps: number[];
  samples: { prompt: string; text: string; answer: string | null; correct: boolean | null }[];
}
