// Threads by day, with search; below them the other rooms of the house.
import { signal } from "@preact/signals";
import type { VNode } from "preact";
import { useEffect } from "preact/hooks";
import { api } from "../core/api.ts";
import { daysAgo } from "../core/format.ts";
import { hrefOf, route, type Page } from "../core/router.ts";
import { explain, isAdmin, mayChat, me, models, start } from "../core/session.ts";
import { keepLanguage, theme, type Theme } from "../core/settings.ts";
import type { ConversationItem } from "../core/types.ts";
import { language, t, type Dictionary } from "../i18n/index.ts";
import { Ask, Confirm } from "../ui/dialog.tsx";
import { Icon, Mark, type IconName } from "../ui/icon.tsx";
import { Menu } from "../ui/menu.tsx";
import { toast } from "../ui/toast.tsx";
import { cursor, items, loadMore, query, refreshList, remove, rename } from "./store.ts";

const renaming = signal<ConversationItem | null>(null);
const removing = signal<ConversationItem | null>(null);

type Word = { [K in keyof Dictionary]: Dictionary[K] extends string ? K : never }[keyof Dictionary];
const ROOMS: readonly { page: Page; icon: IconName; word: Word; shown?: () => boolean }[] = [
  { page: "tutor", icon: "cap", word: "tutor" },
  { page: "compare", icon: "columns", word: "compare", shown: () => models.value.length > 0 },
  { page: "examples", icon: "play", word: "examples" },
  { page: "lab", icon: "flask", word: "lab" },
  { page: "account", icon: "key", word: "account" },
  { page: "admin", icon: "gauge", word: "admin", shown: () => isAdmin.value },
  { page: "status", icon: "pulse", word: "status" },
  { page: "about", icon: "info", word: "about" },
];

export function Sidebar({ onLeave }: { onLeave: () => void }): VNode {
  useEffect(() => {
    if (!mayChat.value) return;
    const timer = setTimeout(() => void refreshList(), query.value ? 180 : 0);
    return () => clearTimeout(timer);
  }, [query.value, mayChat.value]);
  const guard = (work: Promise<void>): void => void work.catch((error: unknown) => toast(explain(error), "error"));
  return (
    <nav class="sidebar" aria-label={t().chat}>
      <header class="sidebar-head">
        <a class="brand" href={hrefOf("chat")} onClick={onLeave}>
          <Mark />
          <span>Rorqual</span>
        </a>
        <button type="button" class="icon-button" aria-label={t().closeSidebar} title={t().closeSidebar} onClick={onLeave} data-close-sidebar>
          <Icon name="panel" />
        </button>
      </header>
      <a class="button new-chat" href={hrefOf("chat")} onClick={() => matchMedia("(max-width: 860px)").matches && onLeave()}>
        <Icon name="plus" />
        {t().newChat}
      </a>
      <Search />
      <Threads />
      <ul class="rooms">
        {ROOMS.filter((room) => room.shown?.() ?? true).map((room) => (
          <li key={room.page}>
            <a href={hrefOf(room.page)} aria-current={route.value.page === room.page ? "page" : undefined}>
              <Icon name={room.icon} />
              {t()[room.word]}
            </a>
          </li>
        ))}
      </ul>
      <Foot />
      {renaming.value && (
        <Ask
          title={t().renameChat}
          value={renaming.value.title}
          onSave={(title) => guard(rename(renaming.value!.id, title))}
          onClose={() => (renaming.value = null)}
        />
      )}
      {removing.value && (
        <Confirm
          question={t().removeQuestion(removing.value.title || t().untitled)}
          action={t().remove}
          onYes={() => guard(remove(removing.value!.id))}
          onClose={() => (removing.value = null)}
        />
      )}
    </nav>
  );
}

function Search(): VNode {
  return (
    <label class="search">
      <Icon name="search" />
      <input type="search" placeholder={t().searchChats} aria-label={t().searchChats} value={query.value} onInput={(event) => (query.value = event.currentTarget.value)} />
    </label>
  );
}

function groupName(item: ConversationItem): string {
  const days = daysAgo(item.updated);
  if (days <= 0) return t().today;
  if (days === 1) return t().yesterday;
  return days < 7 ? t().lastWeek : t().earlier;
}

function Threads(): VNode {
  const groups = new Map<string, ConversationItem[]>();
  for (const item of items.value) {
    const name = groupName(item);
    groups.set(name, [...(groups.get(name) ?? []), item]);
  }
  return (
    <div class="threads">
      {items.value.length === 0 && <p class="muted small">{query.value ? t().noMatches : t().noChats}</p>}
      {[...groups].map(([name, list]) => (
        <section key={name}>
          <h2>{name}</h2>
          <ul>
            {list.map((item) => (
              <ThreadItem key={item.id} item={item} />
            ))}
          </ul>
        </section>
      ))}
      {cursor.value && (
        <button type="button" class="button quiet" onClick={() => void loadMore()}>
          {t().loadMore}
        </button>
      )}
    </div>
  );
}

function ThreadItem({ item }: { item: ConversationItem }): VNode {
  const isOpen = route.value.page === "chat" && route.value.key === item.id;
  return (
    <li class={isOpen ? "thread-item open" : "thread-item"}>
      <a href={hrefOf("chat", item.id)} aria-current={isOpen ? "page" : undefined} title={item.title}>
        {item.title || t().untitled}
      </a>
      <Menu
        label={`${t().more}: ${item.title || t().untitled}`}
        button={<Icon name="dots" />}
        items={[
          { label: t().rename, icon: "edit", onPick: () => (renaming.value = item) },
          { label: t().exportMarkdown, icon: "download", href: api.exportUrl(item.id, "markdown") },
          { label: t().exportJson, icon: "download", href: api.exportUrl(item.id, "json") },
          { label: t().remove, icon: "trash", danger: true, onPick: () => (removing.value = item) },
        ]}
      />
    </li>
  );
}

function Foot(): VNode {
  const themes: { value: Theme; icon: IconName; label: string }[] = [
    { value: "system", icon: "screen", label: t().system },
    { value: "light", icon: "sun", label: t().light },
    { value: "dark", icon: "moon", label: t().dark },
  ];
  const user = me.value?.user ?? null;
  return (
    <footer class="sidebar-foot">
      {user && me.value?.mode === "platform" ? (
        <Menu
          label={user.name}
          buttonClass="who"
          button={
            <>
              <span class="initial" aria-hidden="true">{user.name.slice(0, 1).toUpperCase()}</span>
              <span class="who-name">{user.name}</span>
            </>
          }
          items={[{ label: t().signOut, icon: "logout", onPick: () => void signOut() }]}
          side="left"
          up
        />
      ) : me.value?.mode === "platform" ? (
        <a class="button" href={hrefOf("signin")}>
          {t().signIn}
        </a>
      ) : (
        <span class="muted small">{me.value ? t().localMode : ""}</span>
      )}
      <span class="spacer" />
      <Menu
        label={t().language}
        button={<Icon name="globe" />}
        items={[
          { label: "English", checked: language.value === "en", onPick: () => (keepLanguage.value = "en") },
          { label: "简体中文", checked: language.value === "zh", onPick: () => (keepLanguage.value = "zh") },
        ]}
        up
      />
      <Menu
        label={t().theme}
        button={<Icon name={themes.find((one) => one.value === theme.value)!.icon} />}
        items={themes.map((one) => ({ label: one.label, icon: one.icon, checked: one.value === theme.value, onPick: () => (theme.value = one.value) }))}
        up
      />
    </footer>
  );
}

async function signOut(): Promise<void> {
  await api.signOut();
  items.value = [];
  await start();
}
