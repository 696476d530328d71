// KaTeX builds nodes, no HTML string: it works under Trusted Types and without inline styles.
import katex from "katex";
import "katex/dist/katex.min.css";

/** False where the text is no formula; the caller then shows it as it is. */
export function typeset(tex: string, node: HTMLElement, display: boolean): boolean {
  try {
    katex.render(tex, node, {
      displayMode: display,
      throwOnError: true,
      strict: false,
      trust: false,
      maxExpand: 200,
      maxSize: 20,
      output: "htmlAndMathml",
    });
    return true;
  } catch {
    return false;
  }
}
