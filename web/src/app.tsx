// The frame: sidebar, header, the page of the route, keys that work everywhere.
import { signal } from "@preact/signals";
import type { VNode } from "preact";
import { useEffect } from "preact/hooks";
import { ChatPage } from "./chat/page.tsx";
import { ModelPicker } from "./chat/picker.tsx";
import { Shortcuts } from "./chat/shortcuts.tsx";
import { Sidebar } from "./chat/sidebar.tsx";
import { activeRun, current, lastAnswer, stop } from "./chat/store.ts";
import { commandOf, type Command } from "./core/keys.ts";
import { go, route, type Page } from "./core/router.ts";
import { isOffline, mayChat, me } from "./core/session.ts";
import { sidebarOpen, thinking } from "./core/settings.ts";
import { t } from "./i18n/index.ts";
import { copyText } from "./ui/copy.tsx";
import { focusOn } from "./ui/focus.ts";
import { Icon } from "./ui/icon.tsx";
import { lazy } from "./ui/lazy.tsx";
import { levelName } from "./ui/level.ts";
import { toast, Toasts } from "./ui/toast.tsx";

const drawerOpen = signal(false);
const showsShortcuts = signal(false);
const COMPOSER = ".composer textarea";
const isNarrow = (): boolean => matchMedia("(max-width: 860px)").matches;

const PAGES: Record<Exclude<Page, "chat">, (props: object) => VNode> = {
  tutor: lazy(() => import("./pages/tutor.tsx")),
  compare: lazy(() => import("./pages/compare.tsx")),
  examples: lazy(() => import("./pages/examples.tsx")),
  lab: lazy(() => import("./pages/lab.tsx")),
  account: lazy(() => import("./pages/account.tsx")),
  signin: lazy(() => import("./pages/signin.tsx")),
  admin: lazy(() => import("./pages/admin.tsx")),
  status: lazy(() => import("./pages/status.tsx")),
  about: lazy(() => import("./pages/about.tsx")),
};

function toggleSidebar(): void {
  if (isNarrow()) drawerOpen.value = !drawerOpen.value;
  else sidebarOpen.value = !sidebarOpen.value;
}

const COMMANDS: Record<Command, () => void> = {
  search: () => {
    if (isNarrow()) drawerOpen.value = true;
    else sidebarOpen.value = true;
    focusOn(".search input");
  },
  new: () => {
    go("chat");
    focusOn(COMPOSER);
  },
  stop: () => {
    if (drawerOpen.value) drawerOpen.value = false;
    else if (activeRun.value && !document.querySelector("dialog[open]")) void stop();
  },
  composer: () => focusOn(COMPOSER),
  sidebar: toggleSidebar,
  copy: () => {
    const answer = lastAnswer();
    if (answer) void copyText(answer).then(() => toast(t().copied));
  },
  shortcuts: () => (showsShortcuts.value = true),
  thinking: () => (thinking.value = !thinking.value),
};

function onKeyDown(event: KeyboardEvent): void {
  if (event.defaultPrevented) return;
  const target = event.target as HTMLElement;
  const command = commandOf(event, target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
  if (!command) return;
  if (command !== "stop") event.preventDefault();
  COMMANDS[command]();
}

function Header(): VNode {
  const { page } = route.value;
  const title = page === "chat" ? null : page === "signin" ? t().signIn : t()[page];
  const level = me.value?.level ?? "normal";
  return (
    <header class="topbar">
      <button type="button" class="icon-button show-sidebar" aria-label={t().openSidebar} title={t().openSidebar} onClick={toggleSidebar}>
        <Icon name="menu" />
      </button>
      {title === null ? mayChat.value && <ModelPicker /> : <h1>{title}</h1>}
      <span class="spacer" />
      {level !== "normal" && (
        <a class="badge warm" href="#/status">
          {levelName(level)}
        </a>
      )}
      <button type="button" class="icon-button wide-only" aria-label={t().shortcuts} title={t().shortcuts} onClick={() => (showsShortcuts.value = true)}>
        <Icon name="keyboard" />
      </button>
      <a class="icon-button" href="#/" aria-label={t().newChat} title={t().newChat}>
        <Icon name="plus" />
      </a>
    </header>
  );
}

function CurrentPage(): VNode {
  const { page, key } = route.value;
  if (page === "chat") return <ChatPage id={key} />;
  const Content = PAGES[page];
  return (
    <div class="page-scroll" tabIndex={0} role="region" aria-label={t()[page === "signin" ? "signIn" : page]}>
      <Content key={page} />
    </div>
  );
}

export function App(): VNode {
  useEffect(() => {
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
  useEffect(() => {
    drawerOpen.value = false;
  }, [route.value]);
  useEffect(() => {
    const { page } = route.value;
    const name = page === "chat" ? current.value?.title : page === "signin" ? t().signIn : t()[page];
    document.title = name ? `${name} · Rorqual` : `Rorqual · ${t().appTagline}`;
  });
  const leave = (): void => {
    if (isNarrow()) drawerOpen.value = false;
    else sidebarOpen.value = false;
  };
  const shape = `${sidebarOpen.value ? "shell" : "shell folded"}${drawerOpen.value ? " drawer" : ""}`;
  return (
    <div class={shape}>
      <a class="skip" href="#main" onClick={skip}>
        {t().skipToContent}
      </a>
      <Sidebar onLeave={leave} />
      <div class="scrim" onClick={() => (drawerOpen.value = false)} />
      <main id="main" tabIndex={-1}>
        <Header />
        {isOffline.value && <p class="banner">{t().unreachable}</p>}
        <CurrentPage />
      </main>
      {showsShortcuts.value && <Shortcuts onClose={() => (showsShortcuts.value = false)} />}
      <Toasts />
    </div>
  );
}

function skip(event: Event): void {
  event.preventDefault(); // the hash is the route
  document.getElementById("main")?.focus();
}
