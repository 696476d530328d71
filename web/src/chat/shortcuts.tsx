// The keyboard map, as a dialogue.
import type { VNode } from "preact";
import { t } from "../i18n/index.ts";
import { Dialog } from "../ui/dialog.tsx";

export function Shortcuts({ onClose }: { onClose: () => void }): VNode {
  const control = /Mac|iPhone|iPad/.test(navigator.userAgent) ? "⌘" : "Ctrl";
  const rows: [string[], string][] = [
    [["Enter"], t().keySend],
    [["Shift", "Enter"], t().keyNewline],
    [["↑"], t().keyEditLast],
    [["Esc"], t().keyStop],
    [["/"], t().keyComposer],
    [[control, "K"], t().keySearch],
    [[control, "Shift", "O"], t().keyNew],
    [[control, "Shift", "C"], t().keyCopy],
    [[control, "Shift", "E"], t().keyThinking],
    [[control, "B"], t().keySidebar],
    [["?"], t().keyShortcuts],
  ];
  return (
    <Dialog title={t().shortcuts} onClose={onClose}>
      <dl class="facts keys">
        {rows.map(([keys, what]) => (
          <div key={what}>
            <dt>{what}</dt>
            <dd>
              {keys.map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
