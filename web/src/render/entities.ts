// The named and numbered characters that Markdown allows in text, without an HTML parser.

const NAMED: Readonly<Record<string, string>> = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", reg: "®", trade: "™",
  hellip: "…", mdash: "—", ndash: "–", lsquo: "‘", rsquo: "’", ldquo: "“", rdquo: "”", laquo: "«",
  raquo: "»", times: "×", divide: "÷", plusmn: "±", minus: "−", middot: "·", bull: "•", deg: "°",
  le: "≤", ge: "≥", ne: "≠", asymp: "≈", infin: "∞", larr: "←", rarr: "→", uarr: "↑", darr: "↓",
  harr: "↔", rArr: "⇒", lArr: "⇐", hArr: "⇔", forall: "∀", exist: "∃", isin: "∈", sum: "∑",
  prod: "∏", radic: "√", pi: "π", alpha: "α", beta: "β", gamma: "γ", delta: "δ", theta: "θ",
  lambda: "λ", mu: "μ", sigma: "σ", omega: "ω", Delta: "Δ", Sigma: "Σ", Omega: "Ω", euro: "€",
  pound: "£", yen: "¥", cent: "¢", sect: "§", para: "¶", sup2: "²", sup3: "³", frac12: "½",
};

export function decodeEntities(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(/&(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});/g, (whole, name: string) => {
    if (name[0] !== "#") return Object.hasOwn(NAMED, name) ? NAMED[name]! : whole;
    const code = /^#[xX]/.test(name) ? parseInt(name.slice(2), 16) : parseInt(name.slice(1), 10);
    const isValid = code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
    return isValid ? String.fromCodePoint(code) : "\ufffd";
  });
}
