// The one renderer of text from outside: answers, thinking, problems, samples.
import type { VNode } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { IncrementalParser, type Block } from "./markdown.ts";
import { BlockView, type RenderContext } from "./vnodes.tsx";

const PIECE = 3000; // characters a frame of a text that is there already
const TAIL_GROUPS = 2;
const GROUP = 6; // blocks compared as one: a long text costs little a frame

interface ProseProps {
  text: string;
  live?: boolean;
  /** Only the end is in the page: for a window that follows the newest line. */
  tail?: boolean;
  onRun?: ((code: string, language: string) => void) | undefined;
}

export function Prose({ text, live = false, tail = false, onRun }: ProseProps): VNode {
  const parser = useMemo(() => new IncrementalParser(), []);
  const done = useMemo<RenderContext>(() => ({ live: false, onRun }), [onRun]);
  const growing = useMemo<RenderContext>(() => ({ live: true, onRun }), [onRun]);
  const length = useReveal(text);
  const isWhole = length >= text.length;
  const blocks = live || !isWhole ? parser.update(isWhole ? text : text.slice(0, length)) : parser.finish(text);
  const isCatchingUp = tail && !isWhole; // what is only passed through is parsed, not drawn
  return <div class={tail ? "prose tail" : "prose"}>{isCatchingUp ? null : grouped(blocks, done, live ? growing : done, tail)}</div>;
}

/** How much of a text to show: a piece a frame, so that opening a long one, or catching up with a
 * run after a reload, blocks nothing. What streams in comes in smaller pieces, and at once. */
function useReveal(text: string): number {
  const [length, setLength] = useState(0);
  const reached = useRef(PIECE);
  reached.current = Math.max(length, reached.current);
  if (text.length - reached.current <= PIECE) reached.current = Math.max(PIECE, text.length);
  const shown = reached.current;
  const isWhole = shown >= text.length;
  useEffect(() => {
    if (isWhole) return;
    const frame = requestAnimationFrame(() => setLength(shown + PIECE));
    return () => cancelAnimationFrame(frame);
  }, [isWhole ? null : shown]); // no effect, and no frame for it, while a text only streams in
  return shown;
}

/** Only the last block of a text that streams in is live; those above it are done. */
function grouped(blocks: Block[], done: RenderContext, last: RenderContext, tail: boolean): VNode[] {
  const groups: VNode[] = [];
  const first = tail ? Math.max(0, Math.ceil(blocks.length / GROUP) - TAIL_GROUPS) * GROUP : 0;
  for (let start = first; start < blocks.length; start += GROUP) {
    const part = blocks.slice(start, start + GROUP);
    groups.push(<BlockGroup key={start} blocks={part} done={done} last={start + GROUP >= blocks.length ? last : done} />);
  }
  return groups;
}

interface GroupProps {
  blocks: Block[];
  done: RenderContext;
  last: RenderContext;
}

function BlockGroup({ blocks, done, last }: GroupProps): VNode {
  const before = useRef<(GroupProps & { view: VNode }) | null>(null);
  const old = before.current;
  const isSame = old !== null && old.done === done && old.last === last && old.blocks.length === blocks.length && old.blocks.every((block, index) => block === blocks[index]);
  if (isSame) return old.view;
  const view = (
    <div class="prose-group">
      {blocks.map((block, index) => (
        <BlockView key={block.start} block={block} context={index === blocks.length - 1 ? last : done} />
      ))}
    </div>
  );
  before.current = { blocks, done, last, view };
  return view;
}
