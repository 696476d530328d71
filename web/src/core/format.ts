// Numbers, times and money as people read them, in the language of the page.
import { language, t } from "../i18n/index.ts";

const locale = (): string => (language.value === "zh" ? "zh-CN" : "en-GB");

export function number(value: number, digits = 0): string {
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);
}

/** 1234 -> 1.2k, 128000 -> 128k. */
export function short(value: number): string {
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value).toLowerCase();
}

export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  return `${number(value / 1000 ** power, power > 2 ? 1 : 0)} ${units[power]}`;
}

/** Nano-units as money: enough digits to tell a small cost from nothing. */
export function money(nano: number, currency: string): string {
  const amount = nano / 1e9;
  const digits = amount === 0 || Math.abs(amount) >= 0.01 ? 2 : Math.min(9, 1 - Math.floor(Math.log10(Math.abs(amount))));
  try {
    const style = { style: "currency", currency, minimumFractionDigits: 2, maximumFractionDigits: Math.max(2, digits) } as const;
    return new Intl.NumberFormat(locale(), style).format(amount);
  } catch {
    return `${number(amount, digits)} ${currency}`;
  }
}

export function seconds(value: number): string {
  const whole = Math.round(value);
  if (whole < 60) return t().seconds(number(value, value < 10 ? 1 : 0));
  return t().minutes(number(Math.floor(whole / 60)), number(whole % 60));
}

export function date(iso: string): string {
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium" }).format(new Date(iso));
}

/** A day of the calendar, such as 2026-11-22, which is the same day in every time zone. */
export function day(iso: string): string {
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeZone: "UTC" }).format(new Date(iso));
}

export function dateTime(iso: string): string {
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "short" }).format(new Date(iso));
}

/** Whole days between a time and now, by the calendar of the reader. */
export function daysAgo(iso: string, now: Date = new Date()): number {
  const then = new Date(iso);
  const midnight = (day: Date): number => new Date(day.getFullYear(), day.getMonth(), day.getDate()).getTime();
  return Math.round((midnight(now) - midnight(then)) / 86_400_000);
}
