// The rungs of the overload ladder in words.
import type { Level } from "../core/types.ts";
import { t } from "../i18n/index.ts";

export function levelName(level: Level): string {
  const names: Record<Level, string> = {
    normal: t().levelNormal,
    short_thinking: t().levelShortThinking,
    small_model: t().levelSmallModel,
    queue_only: t().levelQueueOnly,
    closed: t().levelClosed,
  };
  return names[level];
}
