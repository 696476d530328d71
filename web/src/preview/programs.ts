// Which code blocks can run beside the message, and how.

export type ProgramKind = "canvas" | "python" | "html";

export interface Program {
  kind: ProgramKind;
  code: string;
  /** The size that the program's canvas asks for. */
  width: number;
  height: number;
}

const SIZE = 400;
const MAX_SIDE = 1600;
const SCRIPT = /<script\b([^>]*)>([\s\S]*?)<\/script\s*>/gi;

/** True where a run button makes sense; a shell command or a fragment of JSON gets none. */
export function runnableAs(language: string, code: string): boolean {
  if (["html", "htm"].includes(language)) return /<script|<canvas|<body|<style/i.test(code);
  if (["js", "javascript"].includes(language)) return code.trim() !== "";
  return ["py", "python", "python3"].includes(language) && code.trim() !== "";
}

/** A page that is a canvas and its script runs as a canvas program: the narrower sandbox. */
export function programOf(code: string, language: string): Program {
  if (["py", "python", "python3"].includes(language)) return { kind: "python", code, width: SIZE, height: SIZE };
  if (!["html", "htm"].includes(language)) return { kind: "canvas", code, ...sizeIn(code) };
  const scripts = [...code.matchAll(SCRIPT)];
  const hasForeign = scripts.some((script) => /\bsrc\s*=/i.test(script[1]!) || /type\s*=\s*["']?module/i.test(script[1]!));
  const canvases = code.match(/<canvas\b/gi)?.length ?? 0;
  const hasControls = /<(button|input|select|textarea|svg|img|form|iframe)\b/i.test(code);
  if (hasForeign || hasControls || canvases > 1 || scripts.length === 0) return { kind: "html", code, width: SIZE, height: SIZE };
  const tag = /<canvas\b[^>]*>/i.exec(code)?.[0] ?? "";
  return { kind: "canvas", code: scripts.map((script) => script[2]!).join("\n;\n"), ...sizeOf(tag) };
}

function sizeOf(tag: string): { width: number; height: number } {
  const side = (name: string): number => {
    const found = new RegExp(`\\b${name}\\s*=\\s*["']?(\\d+)`, "i").exec(tag);
    return found ? Math.min(MAX_SIDE, Number(found[1])) : SIZE;
  };
  return { width: side("width"), height: side("height") };
}

function sizeIn(code: string): { width: number; height: number } {
  const side = (name: string): number => {
    const found = new RegExp(`canvas\\.${name}\\s*=\\s*(\\d+)`).exec(code);
    return found ? Math.min(MAX_SIDE, Math.max(1, Number(found[1]))) : SIZE;
  };
  return { width: side("width"), height: side("height") };
}
