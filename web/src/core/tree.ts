// A conversation is a tree; what is shown is one path through it.
import type { Message } from "./types.ts";

export interface PathStep {
  message: Message;
  /** The ids of all messages with the same parent and role, oldest first. */
  siblings: string[];
}

const ROOT = "";

export function childrenOf(messages: readonly Message[]): Map<string, Message[]> {
  const children = new Map<string, Message[]>();
  for (const message of messages) {
    const key = message.parent_id ?? ROOT;
    const list = children.get(key);
    if (list) list.push(message);
    else children.set(key, [message]);
  }
  for (const list of children.values()) list.sort((a, b) => compare(a.created, b.created));
  return children;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The path from the root: at each fork the chosen child, else the newest. */
export function pathOf(messages: readonly Message[], chosen: ReadonlyMap<string, string>): PathStep[] {
  const children = childrenOf(messages);
  const path: PathStep[] = [];
  let parent = ROOT;
  for (;;) {
    const options = children.get(parent);
    if (!options?.length) return path;
    const message = options.find((option) => option.id === chosen.get(parent)) ?? options[options.length - 1]!;
    if (path.some((step) => step.message.id === message.id)) return path; // a loop in broken data
    path.push({ message, siblings: options.map((option) => option.id) });
    parent = message.id;
  }
}

/** Where a message hangs, as `pathOf` reads it from its map. */
export function parentKey(message: Message): string {
  return message.parent_id ?? ROOT;
}
