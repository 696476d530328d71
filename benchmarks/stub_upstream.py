"""A server with OpenAI's API that writes numbered tokens at a fixed pace and does nothing else.

    python benchmarks/stub_upstream.py PORT [--first-ms 20] [--pace-ms 15]

It stands behind gateways that are measured: an answer has `max_tokens` tokens, "tok0 tok1 ...",
each due at a fixed moment after its request came, so what arrives later was added on the way. Every
answer is streamed. One process, one thread, no framework: a few microseconds a token.
"""

import argparse
import asyncio
import json
from collections.abc import Callable

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_CREATED = 1_700_000_000


def token_text(number: int) -> str:
    """What the stub writes as its token of this number."""
    return f"tok{number} "


class StubProtocol(asyncio.Protocol):
    """One connection: requests after one another, answers in the same order."""

    def __init__(self, first_seconds: float, pace_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._pace_seconds = pace_seconds
        self._buffer = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (found := _take_request(self._buffer)) is not None:
            line, body, self._buffer = found
            if line.startswith(b"GET "):
                self._write_json({"object": "list", "data": [{"id": "stub", "object": "model"}]})
            else:
                self._answer(json.loads(body))

    def _answer(self, body: dict) -> None:
        num_tokens = body["max_tokens"]
        events = [_event({"content": token_text(number)}) for number in range(num_tokens)]
        events[0] = HEAD + _event({"role": "assistant", "content": ""}) + events[0]
        usage = {
            "prompt_tokens": 8,
            "completion_tokens": num_tokens,
            "total_tokens": 8 + num_tokens,
        }
        events[-1] += _event({}, "length") + _chunk(_line({"choices": [], "usage": usage}))
        events[-1] += _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        self._send_next(events, 0, self._loop.time() + self._first_seconds)

    def _send_next(self, events: list[bytes], number: int, due: float) -> None:
        """One timer at a time: two of the same moment may go off in either order."""
        if number > 0:
            self._send(events[number - 1])
        if number < len(events):
            moment = due + number * self._pace_seconds
            self._loop.call_at(moment, self._send_next, events, number + 1, due)

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _write_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self._send(head.encode() + b"\r\n\r\n" + body)


def _take_request(buffer: bytes) -> tuple[bytes, bytes, bytes] | None:
    """(request line, body, what follows) once a whole request is there."""
    head, mark, rest = buffer.partition(b"\r\n\r\n")
    if not mark:
        return None
    line, *headers = head.split(b"\r\n")
    length = 0
    for header in headers:
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if len(rest) < length:
        return None
    return line, rest[:length], rest[length:]


def _line(fields: dict) -> bytes:
    head = {"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": _CREATED}
    value = json.dumps({**head, "model": "stub", **fields}, separators=(",", ":"))
    return f"data: {value}\n\n".encode()


def _event(delta: dict, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _chunk(_line({"choices": [choice]}))


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def serve(port: int, first_seconds: float, pace_seconds: float) -> None:
    """Until the process is ended."""
    make: Callable[[], StubProtocol] = lambda: StubProtocol(first_seconds, pace_seconds)  # noqa: E731
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--first-ms", type=float, default=20.0)
    parser.add_argument("--pace-ms", type=float, default=15.0)
    given = parser.parse_args()
    import uvloop

    uvloop.run(serve(given.port, given.first_ms / 1000, given.pace_ms / 1000))


if __name__ == "__main__":
    main()
