// The pane beside the conversation: the frame, what it printed, and its buttons.
import "../styles/preview.css";
import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { submitText } from "../chat/composer.tsx";
import { ROOT } from "../core/api.ts";
import { t } from "../i18n/index.ts";
import { Icon } from "../ui/icon.tsx";
import { HELLO, PORT, readMessage, type FromFrame, type PreviewStatus } from "./protocol.ts";
import type { Program } from "./programs.ts";
import type { Shown } from "./state.ts";

const SILENT_MS = 6000;
const MAX_LINES = 200;

export type Phase = "loading" | PreviewStatus | "stopped";

interface FrameProps {
  program: Program;
  onMessage: (message: FromFrame) => void;
}

/** One run of one program. A new key is a new frame: nothing of the last run is left. */
export function PreviewFrame({ program, onMessage }: FrameProps): VNode {
  const frame = useRef<HTMLIFrameElement>(null);
  const tell = useRef(onMessage);
  tell.current = onMessage;
  useEffect(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = ({ data }) => {
      const message = readMessage(data);
      if (message) tell.current(message);
    };
    const onHello = (event: MessageEvent): void => {
      const target = frame.current?.contentWindow;
      if (!target || event.source !== target || event.origin !== "null" || event.data !== HELLO) return;
      removeEventListener("message", onHello);
      target.postMessage(PORT, "*", [channel.port2]); // an opaque origin can be named no other way
      channel.port1.postMessage({ type: "run", ...program, pyodide: new URL(`${ROOT}pyodide/`, location.href).href });
    };
    addEventListener("message", onHello);
    frame.current!.src = `${ROOT}preview`;
    return () => {
      removeEventListener("message", onHello);
      channel.port1.close();
    };
  }, []);
  return <iframe ref={frame} class="preview-frame" title={t().preview} sandbox="allow-scripts" referrerpolicy="no-referrer" />;
}

interface PaneProps {
  shown: Shown;
  onClose?: () => void;
}

export default function PreviewPane({ shown, onClose }: PaneProps): VNode {
  return <Pane key={shown.turn} program={shown.program} onClose={onClose} />;
}

export function Pane({ program, onClose, canFix = true }: { program: Program; onClose?: (() => void) | undefined; canFix?: boolean }): VNode {
  const root = useRef<HTMLElement>(null);
  const [turn, setTurn] = useState(0);
  const [mayRun, setMayRun] = useState(program.kind !== "html");
  const [phase, setPhase] = useState<Phase>("loading");
  const [lines, setLines] = useState<string[]>([]);
  const [error, setError] = useState<string | null>(null);
  const lastSign = useRef(performance.now());
  const [isSilent, setSilent] = useState(false);

  useEffect(() => {
    if (phase !== "running" || program.kind === "html") return setSilent(false);
    const timer = setInterval(() => setSilent(lastSign.current > 0 && performance.now() - lastSign.current > SILENT_MS), 1000);
    return () => clearInterval(timer);
  }, [phase, turn]);

  const onMessage = (message: FromFrame): void => {
    if (message.type === "alive") lastSign.current = performance.now();
    else if (message.type === "output") setLines((all) => [...all.slice(1 - MAX_LINES), message.text]);
    else if (message.type === "status") setPhase(message.status);
    else {
      setError(message.text);
      setPhase("failed");
    }
  };
  const restart = (): void => {
    setLines([]);
    setError(null);
    setPhase("loading");
    lastSign.current = 0; // a program that never draws is not silent
    setTurn(turn + 1);
  };
  const stop = (): void => setPhase("stopped");
  const isOn = phase === "running" || phase === "python" || phase === "loading";
  return (
    <aside class="preview-pane" aria-label={t().preview} ref={root} data-phase={phase}>
      <header>
        <strong>{program.kind === "python" ? "Python" : program.kind === "html" ? "HTML" : "Canvas"}</strong>
        {mayRun && <Badge phase={phase} />}
        <span class="spacer" />
        {mayRun && isOn && <Tool icon="stop" label={t().stop} onClick={stop} />}
        {mayRun && <Tool icon="reset" label={t().reset} onClick={restart} />}
        <Tool icon="expand" label={t().fullScreen} onClick={() => void toggleFullScreen(root.current!)} />
        {onClose && <Tool icon="cross" label={t().close} onClick={onClose} />}
      </header>
      <div class="preview-stage">
        {mayRun && phase !== "stopped" ? (
          <PreviewFrame key={turn} program={program} onMessage={onMessage} />
        ) : (
          <div class="preview-idle">
            {program.kind === "html" && <p>{t().htmlNote}</p>}
            <button type="button" class="button" onClick={() => (setMayRun(true), restart())}>
              <Icon name="play" />
              {mayRun ? t().run : t().runHtml}
            </button>
          </div>
        )}
        {phase === "python" && <p class="preview-wait">{t().previewPython}</p>}
      </div>
      {isSilent && <p class="notice">{t().previewSilent}</p>}
      {error !== null && (
        <div class="preview-error">
          <pre>{error}</pre>
          {canFix && (
            <button type="button" class="button slim" onClick={() => submitText(t().fixPrompt(`\`\`\`text\n${error}\n\`\`\``))}>
              {t().askToFix}
            </button>
          )}
        </div>
      )}
      {lines.length > 0 && (
        <pre class="preview-output" aria-label={t().output} tabIndex={0}>
          {lines.join("\n")}
        </pre>
      )}
      <p class="preview-note">
        {t().sandboxNote} {program.kind === "python" && t().pygameNote}
      </p>
    </aside>
  );
}

function Badge({ phase }: { phase: Phase }): VNode {
  const words: Record<Phase, string> = {
    loading: t().previewLoading,
    python: t().loading,
    running: t().previewRunning,
    done: t().previewDone,
    failed: t().previewFailed,
    stopped: t().previewStopped,
  };
  const style = phase === "failed" ? "badge bad" : phase === "running" ? "badge good" : "badge";
  return (
    <span class={style} role="status">
      {words[phase]}
    </span>
  );
}

function Tool({ icon, label, onClick }: { icon: "stop" | "reset" | "expand" | "cross"; label: string; onClick: () => void }): VNode {
  return (
    <button type="button" class="icon-button" aria-label={label} title={label} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}

async function toggleFullScreen(element: HTMLElement): Promise<void> {
  if (document.fullscreenElement) return document.exitFullscreen();
  try {
    await element.requestFullscreen();
  } catch {
    element.classList.toggle("maximised"); // where the browser has no full screen for elements
  }
}
