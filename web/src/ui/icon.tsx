// Line icons of our own on a 24 by 24 grid.
import type { VNode } from "preact";

const PATHS = {
  plus: "M12 5v14M5 12h14",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14M16.2 16.2 20 20",
  menu: "M4 7h16M4 12h16M4 17h16",
  panel: "M4 5.5h16v13H4zM9.5 5.5v13",
  send: "M12 19V5.5M6 11l6-6 6 6",
  stop: "M7.5 7.5h9v9h-9z",
  play: "M8 5.5v13l10.5-6.5z",
  reset: "M5 12a7 7 0 1 0 2.2-5.1M5 4.5v4h4",
  expand: "M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  check: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M6 6l12 12M18 6 6 18",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  again: "M19 12a7 7 0 1 1-2.2-5.1M19 4.5v4h-4",
  left: "M14.5 6l-6 6 6 6",
  right: "M9.5 6l6 6-6 6",
  down: "M6 9.5l6 6 6-6",
  arrowDown: "M12 5v14M6 13l6 6 6-6",
  dots: "M5.5 12h.01M12 12h.01M18.5 12h.01",
  bulb: "M9.5 18.5h5M10.5 21h3M12 3a6 6 0 0 0-3.6 10.8c.7.6 1.1 1.3 1.1 2.2h5c0-.9.4-1.6 1.1-2.2A6 6 0 0 0 12 3",
  chat: "M4.5 5.5h15v11h-9l-4 3.5v-3.5h-2z",
  cap: "M12 5 2.5 9.5 12 14l9.5-4.5zM6.5 11.5v4.2c3.4 2.6 7.6 2.6 11 0v-4.2M21.5 9.5v5",
  columns: "M4 5h7v14H4zM13 5h7v14h-7z",
  flask: "M9.5 4h5M10.5 4v6L5 19a1 1 0 0 0 .9 1.5h12.2A1 1 0 0 0 19 19l-5.500-9V4M8 15h8",
  user: "M12 4.500a3.800 3.800 0 1 0 0 7.600 3.800 3.800 0 0 0 0-7.600M4.500 20c.8-4 4-5.500 7.500-5.500s6.700 1.500 7.500 5.500",
  gauge: "M4.500 18a9 9 0 1 1 15 0M12 14l4-5",
  pulse: "M3 12.500h4l3-8 4 15 3-7h4",
  info: "M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17M12 11v5.500M12 7.500h.01",
  spark: "M12 3.500c.6 5 3.500 7.900 8.500 8.500-5 .6-7.900 3.500-8.500 8.500-.6-5-3.500-7.900-8.500-8.500 5-.6 7.900-3.500 8.500-8.500",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400",
  moon: "M19.500 14.500A8 8 0 0 1 9.500 4.500a8 8 0 1 0 10 10",
  screen: "M4 5h16v11H4zM9 20h6M12 16v4",
  globe: "M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17M3.500 12h17M12 3.500c5 5 5 12 0 17M12 3.500c-5 5-5 12 0 17",
  trash: "M5 7h14M10 7V4.500h4V7M6.500 7l1 13h9l1-13M10.500 11v5.500M13.500 11v5.500",
  download: "M12 4v11M7 10.500l5 5 5-5M5 20h14",
  key: "M8 12.500a3.500 3.500 0 1 0 0 7 3.500 3.500 0 0 0 0-7M10.500 13.500 19.500 4.500M15 9l3 3",
  logout: "M14 5H5v14h9M10 12h10M16.500 8.500 20 12l-3.500 3.500",
  keyboard: "M3 6.500h18v11H3zM7 10h.01M11 10h.01M15 10h.01M17.500 10h.01M8 14h8",
  alert: "M12 4 2.500 20h19zM12 10v4.500M12 17.200h.01",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }): VNode {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The mark: a rorqual's throat, five pleats under a rising back. */
export function Mark({ size = 28 }: { size?: number }): VNode {
  return (
    <svg class="mark" width={size} height={size} viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <path class="mark-back" d="M2 16.500C5 8.500 12 5 20 6.500c5.500 1 9 4 10 8-2.500-.6-4.700-.4-7 .5-6 2.300-13 3.500-21 1.500z" />
      <path class="mark-pleat" d="M4.500 20.300c7 1.600 14 .8 20.500-1.900M7 23.200c6.200 1.200 11.500.4 17-2M10.500 25.800c4.600.7 8.500.1 12-1.800" />
      <circle class="mark-eye" cx="22.500" cy="11.300" r="1.100" />
    </svg>
  );
}
