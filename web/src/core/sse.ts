// Server-sent events, parsed by hand: EventSource can neither be given a Last-Event-ID after a
// reload nor tell a refusal from a lost network.

export interface ServerEvent {
  id: string;
  event: string;
  data: string;
}

/** Feed it text in pieces of any size; complete events come out. */
export class EventParser {
  private buffer = "";
  private event = "";
  private data: string[] = [];
  private id = "";

  feed(piece: string): ServerEvent[] {
    this.buffer += piece;
    const events: ServerEvent[] = [];
    let start = 0;
    for (;;) {
      const end = this.lineEnd(start);
      if (end === null) break;
      const event = this.line(this.buffer.slice(start, end.at));
      if (event) events.push(event);
      start = end.next;
    }
    this.buffer = this.buffer.slice(start);
    return events;
  }

  /** The end of the line that starts here; null while it may still grow (a \r could precede \n). */
  private lineEnd(start: number): { at: number; next: number } | null {
    for (let at = start; at < this.buffer.length; at++) {
      const letter = this.buffer.charCodeAt(at);
      if (letter === 10) return { at, next: at + 1 };
      if (letter === 13) {
        if (at + 1 === this.buffer.length) return null;
        return { at, next: this.buffer.charCodeAt(at + 1) === 10 ? at + 2 : at + 1 };
      }
    }
    return null;
  }

  private line(line: string): ServerEvent | null {
    if (line === "") return this.dispatch();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "event") this.event = value;
    else if (field === "data") this.data.push(value);
    else if (field === "id" && !value.includes("\0")) this.id = value;
    return null;
  }

  private dispatch(): ServerEvent | null {
    const { event, data } = this;
    this.event = "";
    this.data = [];
    if (data.length === 0) return null;
    return { id: this.id, event: event || "message", data: data.join("\n") };
  }
}
