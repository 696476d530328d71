// Events in any pieces give the same text; none is lost, none counts twice.
import { applyEvent, Gap, newRun, type RunState } from "@/core/run.ts";
import { EventParser, type ServerEvent } from "@/core/sse.ts";

const STREAM =
  ": keep-alive\n\nid: 1\nevent: queue\ndata: {\"position\": 2, \"seconds\": 1.5}\n\n" +
  "id: 2\nevent: start\ndata: {\"model\": \"m\"}\n\n" +
  "id: 3\nevent: delta\ndata: {\"reasoning\": \"让我想 \\n\"}\n\n: x\n\n" +
  "id: 4\nevent: delta\ndata: {\"reasoning\": \"想🐋\"}\n\n" +
  "id: 5\nevent: delta\ndata: {\"content\": \"8\"}\n\n" +
  "id: 6\nevent: end\ndata: {\"state\": \"complete\", \"finish_reason\": \"stop\", \"usage\": null, \"error\": null}\n\n";

function parsed(text: string, size: number): ServerEvent[] {
  const parser = new EventParser();
  const events: ServerEvent[] = [];
  for (let at = 0; at < text.length; at += size) events.push(...parser.feed(text.slice(at, at + size)));
  return events;
}

function played(events: ServerEvent[], from: RunState = newRun()): RunState {
  return events.reduce((state, event, index) => applyEvent(state, event, 100 * index), from);
}

test.each([1, 2, 5, 17, 1000])("pieces of %i letters give the same events", (size) => {
  expect(parsed(STREAM, size)).toEqual(parsed(STREAM, STREAM.length));
});

test("line ends may be \\r\\n or \\r, split anywhere", () => {
  for (const end of ["\r\n", "\r"]) {
    const text = STREAM.replaceAll("\n", end) + ":\n";
    expect(parsed(text, 1)).toEqual(parsed(STREAM, 9));
  }
});

test("several data lines are one text, and an event without data is none", () => {
  expect(parsed("data: a\ndata: b\n\nevent: x\n\n", 3)).toEqual([{ id: "", event: "message", data: "a\nb" }]);
});

test("the texts of all deltas in order are the message", () => {
  const state = played(parsed(STREAM, 11));
  expect(state.reasoning).toBe("让我想 \n想🐋");
  expect(state.content).toBe("8");
  expect(state).toMatchObject({ seq: 6, phase: "ended", queue: null, model: "m", thinkingMs: 200 });
});

test("a stream that is cut anywhere and resumed is the whole stream", () => {
  const events = parsed(STREAM, 50);
  for (let cut = 0; cut <= events.length; cut++) {
    for (let overlap = 0; overlap <= cut; overlap++) {
      const state = played(events.slice(cut - overlap), played(events.slice(0, cut)));
      expect({ ...state, thinkingSince: 0, thinkingMs: 0 }).toEqual({ ...played(events), thinkingSince: 0, thinkingMs: 0 });
    }
  }
});

test("a missing event is a gap, not a hole in the text", () => {
  const events = parsed(STREAM, 50);
  expect(() => played([events[0]!, events[2]!])).toThrow(Gap);
  expect(() => played([{ ...events[0]!, id: "x" }])).toThrow(Gap);
});

test("the queue place is shown until the run starts", () => {
  const events = parsed(STREAM, 50);
  expect(played(events.slice(0, 1))).toMatchObject({ phase: "queued", queue: { position: 2 } });
  expect(played(events.slice(0, 2)).queue).toBeNull();
  expect(played(events.slice(0, 3)).phase).toBe("thinking");
});
