// Where a link in an answer may lead: http, https and mailto, nothing else.

const SAFE = new Set(["http:", "https:", "mailto:"]);

/** The address to open, or null: then the link is shown as text. */
export function safeHref(href: string): string | null {
  const text = href.trim();
  if (!/^[a-z][a-z0-9+.-]*:/i.test(text)) return null;
  try {
    const url = new URL(text);
    return SAFE.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

export function hostOf(href: string): string {
  try {
    return new URL(href).host;
  } catch {
    return "";
  }
}
