// One fetch for everything. A change carries X-Rorqual, which no foreign page can send.
import type {
  AdminUser, ApiKey, Balance, Challenge, Conversation, ConversationItem, EngineStatus, LabDetails,
  LabMetrics, LabRun, LabSamples, Level, Me, Model, Overview, Proof, Release, RunRequest, RunStarted,
  TutorFamily, UsageReport, Verification,
} from "./types.ts";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly retryAfterSeconds: number | null,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

export const ROOT = new URL("./", document.baseURI).pathname;

export function apiUrl(path: string): string {
  return `${ROOT}api/${path}`;
}

export async function toApiError(response: Response): Promise<ApiError> {
  let code = String(response.status);
  let message = response.statusText || `HTTP ${response.status}`;
  try {
    const body = (await response.json()) as { error?: { code?: string; message?: string } };
    code = body.error?.code ?? code;
    message = body.error?.message ?? message;
  } catch {
    // A proxy's page instead of our JSON: the status line has to do.
  }
  const retry = Number(response.headers.get("Retry-After") ?? NaN);
  return new ApiError(response.status, code, message, Number.isFinite(retry) ? retry : null);
}

async function call<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (method !== "GET") headers["X-Rorqual"] = "1";
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(apiUrl(path), {
      method,
      headers,
      credentials: "same-origin",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal ? { signal } : {}),
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new ApiError(0, "offline", "The server cannot be reached.", null);
  }
  if (!response.ok) throw await toApiError(response);
  if (response.status === 204) return undefined as T;
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

const id = encodeURIComponent;
const get = <T>(path: string, signal?: AbortSignal): Promise<T> => call<T>("GET", path, undefined, signal);
const post = <T>(path: string, body: unknown = {}): Promise<T> => call<T>("POST", path, body);

export const api = {
  me: () => get<Me>("me"),
  challenge: (purpose: "register" | "login", name: string) =>
    get<Challenge>(`challenge?for=${purpose}&name=${id(name)}`),
  register: (name: string, password: string, proof: Proof | null) => post<Me>("register", { name, password, proof }),
  signIn: (name: string, password: string, proof: Proof | null) => post<Me>("session", { name, password, proof }),
  signOut: () => call<void>("DELETE", "session"),
  models: () => get<{ models: Model[] }>("models"),
  fetchModel: (key: string) => post<void>(`models/${id(key)}/fetch`),
  cancelFetch: (key: string) => call<void>("DELETE", `models/${id(key)}/fetch`),
  release: (signal?: AbortSignal) => get<Release>("../.well-known/release.json", signal),
  status: (signal?: AbortSignal) => get<EngineStatus>("status", signal),

  conversations: (query: string, cursor: string | null, signal?: AbortSignal) =>
    get<{ items: ConversationItem[]; cursor: string | null }>(
      `conversations?query=${id(query)}${cursor ? `&cursor=${id(cursor)}` : ""}`,
      signal,
    ),
  createConversation: (title?: string) => post<ConversationItem>("conversations", title ? { title } : {}),
  conversation: (key: string) => get<Conversation>(`conversations/${id(key)}`),
  rename: (key: string, title: string) => call<void>("PATCH", `conversations/${id(key)}`, { title }),
  remove: (key: string) => call<void>("DELETE", `conversations/${id(key)}`),
  exportUrl: (key: string, format: "json" | "markdown") =>
    apiUrl(`conversations/${id(key)}/export?format=${format}`),
  startRun: (key: string, request: RunRequest) => post<RunStarted>(`conversations/${id(key)}/runs`, request),
  stopRun: (key: string) => post<void>(`runs/${id(key)}/stop`),

  keys: () => get<{ keys: ApiKey[] }>("keys"),
  createKey: (body: { name: string; expires?: string; models?: string[]; cap?: number }) =>
    post<ApiKey & { secret: string }>("keys", body),
  revokeKey: (key: string) => call<void>("DELETE", `keys/${id(key)}`),
  usage: (days: number) => get<UsageReport>(`usage?days=${days}`),
  balance: () => get<Balance>("balance"),

  overview: (signal?: AbortSignal) => get<Overview>("admin/overview", signal),
  setLevel: (level: Level | "auto") => post<void>("admin/level", { level }),
  users: (query: string) => get<{ currency?: string; users: AdminUser[] }>(`admin/users?query=${id(query)}`),
  changeUser: (key: string, change: { locked?: boolean; role?: "user" | "admin" }) =>
    call<void>("PATCH", `admin/users/${id(key)}`, change),
  topUp: (key: string, amount: number) => post<void>(`admin/users/${id(key)}/topup`, { amount }),

  families: () => get<{ families: TutorFamily[] }>("tutor/families"),
  problem: (family: string, level: number, language: string) =>
    post<{ problem_id: string; prompt: string }>("tutor/problems", { family, level, language }),
  hint: (key: string, step: number) =>
    post<{ text: string; last: boolean }>(`tutor/problems/${id(key)}/hint`, { step }),
  check: (key: string, answer: string) =>
    post<{ correct: boolean | null; message: string }>(`tutor/problems/${id(key)}/check`, { answer }),
  verify: (text: string, answer: string, language: string) =>
    post<Verification>("tutor/verify", { text, answer, language }),

  labRuns: (signal?: AbortSignal) => get<{ runs: LabRun[] }>("lab/runs", signal),
  labRun: (key: string) => get<LabDetails>(`lab/runs/${id(key)}`),
  labMetrics: (key: string, after: number, signal?: AbortSignal) =>
    get<LabMetrics>(`lab/runs/${id(key)}/metrics?after=${after}`, signal),
  labSamples: (key: string, step: number | null) =>
    get<LabSamples>(`lab/runs/${id(key)}/samples${step === null ? "" : `?step=${step}`}`),
  startLabRun: (preset: string, overrides: string[]) =>
    post<{ id: string }>("lab/runs", { preset, overrides }),
  stopLabRun: (key: string) => post<void>(`lab/runs/${id(key)}/stop`),
};
