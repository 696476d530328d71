// Tokens to VNodes. Text is text: an answer never becomes HTML, so nothing needs to be sanitised.
import { Component, type ComponentChildren, type VNode } from "preact";
import type { Token, Tokens } from "marked";
import { t } from "../i18n/index.ts";
import { CodeBlock } from "./code.tsx";
import { decodeEntities } from "./entities.ts";
import { hostOf, safeHref } from "./links.ts";
import type { Block } from "./markdown.ts";
import { Formula } from "./formula.tsx";
import type { MathToken } from "./math.ts";

export interface RenderContext {
  /** True while the text grows: then code is highlighted less often. */
  live: boolean;
  onRun?: ((code: string, language: string) => void) | undefined;
}

type Renderer<T> = (token: T, context: RenderContext) => ComponentChildren;

function inner(tokens: Token[] | undefined, context: RenderContext): ComponentChildren {
  return tokens?.map((token) => render(token, context));
}

function Link({ href, children }: { href: string; children: ComponentChildren }): VNode {
  const safe = safeHref(href);
  if (safe === null) return <span class="dead-link">{children}</span>;
  return (
    <a href={safe} target="_blank" rel="noopener noreferrer nofollow">
      {children}
    </a>
  );
}

/** Remote images are not fetched: loading one would tell its host what was said. */
function ImageLink({ href, text }: { href: string; text: string }): VNode {
  const safe = safeHref(href);
  if (safe === null || safe.startsWith("mailto:")) return <span>{text}</span>;
  return (
    <a class="image-link" href={safe} target="_blank" rel="noopener noreferrer nofollow">
      {text ? `${text} · ` : ""}
      {t().imageAt(hostOf(safe))}
    </a>
  );
}

function list(token: Tokens.List, context: RenderContext): VNode {
  const items = token.items.map((item, index) => (
    <li key={index} class={item.task ? "task" : undefined}>
      {item.task && <input type="checkbox" checked={item.checked ?? false} disabled />}
      {inner(item.tokens.filter((part) => part.type !== "checkbox"), context)}
    </li>
  ));
  return token.ordered ? <ol start={typeof token.start === "number" ? token.start : 1}>{items}</ol> : <ul>{items}</ul>;
}

function table(token: Tokens.Table, context: RenderContext): VNode {
  const cell = (part: Tokens.TableCell, index: number, Tag: "th" | "td"): VNode => (
    <Tag key={index} class={part.align ? `align-${part.align}` : undefined}>
      {inner(part.tokens, context)}
    </Tag>
  );
  return (
    <div class="table-scroll" role="region" aria-label={t().table} tabIndex={0}>
      <table>
        <thead>
          <tr>{token.header.map((part, index) => cell(part, index, "th"))}</tr>
        </thead>
        <tbody>
          {token.rows.map((row, at) => (
            <tr key={at}>{row.map((part, index) => cell(part, index, "td"))}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function heading(token: Tokens.Heading, context: RenderContext): VNode {
  const Tag = `h${Math.min(6, token.depth + 2)}` as "h3"; // the page's own headings are h1 and h2
  return <Tag class={`heading-${token.depth}`}>{inner(token.tokens, context)}</Tag>;
}

const RENDERERS: { readonly [type: string]: Renderer<never> | undefined } = {
  space: () => null,
  def: () => null,
  paragraph: (token: Tokens.Paragraph, context) => <p>{inner(token.tokens, context)}</p>,
  text: (token: Tokens.Text, context) =>
    token.tokens ? inner(token.tokens, context) : decodeEntities(token.text),
  escape: (token: Tokens.Escape) => token.text,
  heading,
  strong: (token: Tokens.Strong, context) => <strong>{inner(token.tokens, context)}</strong>,
  em: (token: Tokens.Em, context) => <em>{inner(token.tokens, context)}</em>,
  del: (token: Tokens.Del, context) => <del>{inner(token.tokens, context)}</del>,
  br: () => <br />,
  hr: () => <hr />,
  blockquote: (token: Tokens.Blockquote, context) => <blockquote>{inner(token.tokens, context)}</blockquote>,
  codespan: (token: Tokens.Codespan) => <code>{token.text}</code>,
  code: (token: Tokens.Code, context) => <CodeBlock token={token} context={context} />,
  list,
  table,
  link: (token: Tokens.Link, context) => <Link href={token.href}>{inner(token.tokens, context)}</Link>,
  image: (token: Tokens.Image) => <ImageLink href={token.href} text={token.text} />,
  html: (token: Tokens.HTML) => <span class="raw-html">{token.raw}</span>,
  math: (token: MathToken) => <Formula tex={token.tex} display={token.display} closed={token.closed} raw={token.raw} />,
};

function render(token: Token, context: RenderContext): ComponentChildren {
  const renderer = Object.hasOwn(RENDERERS, token.type) ? RENDERERS[token.type] : undefined;
  return renderer ? (renderer as Renderer<Token>)(token, context) : token.raw;
}

interface BlockProps {
  block: Block;
  context: RenderContext;
}

/** A settled block is the same object at the next frame, and is then not looked at again. */
export class BlockView extends Component<BlockProps> {
  override shouldComponentUpdate(next: BlockProps): boolean {
    return next.block !== this.props.block || next.context !== this.props.context;
  }

  render({ block, context }: BlockProps): ComponentChildren {
    return render(block.token, context);
  }
}
