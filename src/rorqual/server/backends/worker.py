"""The engine's own process: `python -m rorqual.server.backends.worker FD`.

The first frame says which model to load. Then requests come in by a reading thread and one frame
goes out a step. The end of the socket is the end of the process, whoever closed it.
"""

import os
import signal
import socket
import sys
import threading
from typing import Any

from rorqual.engine import Delta, Engine, EngineStats
from rorqual.engine.llm import LLM
from rorqual.errors import EngineError, RorqualError
from rorqual.server.backends.engine_host import EngineHost
from rorqual.server.backends.frames import (
    FrameReader,
    delta_to_json,
    pack,
    request_from_json,
    stats_to_json,
)

_READ_BYTES = 1 << 18


def serve_engine(engine: Engine, connection: socket.socket, frames: FrameReader) -> None:
    """Serve one engine over a connection until its other side closes it."""

    def deliver(deltas: list[Delta], stats: EngineStats) -> None:
        message = {"deltas": [delta_to_json(d) for d in deltas], "stats": stats_to_json(stats)}
        connection.sendall(pack(message))

    host = EngineHost(engine, deliver)
    connection.sendall(pack({"ready": True, "stats": stats_to_json(engine.stats())}))
    reader = threading.Thread(target=_read, args=(host, connection, frames), daemon=True)
    reader.start()
    try:
        host.run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server has gone; so do we


def _read(host: EngineHost, connection: socket.socket, frames: FrameReader) -> None:
    """Hand on what is asked, until the server is gone."""
    try:
        while data := connection.recv(_READ_BYTES):
            for message in frames.feed(data):
                if message["do"] == "submit":
                    host.submit(request_from_json(message["request"]))
                else:
                    host.cancel(message["id"])
    except OSError:
        pass  # reset instead of closed: the same to us
    host.close()


def first_frame(connection: socket.socket, frames: FrameReader) -> Any:
    """The settings; None if the server ended before it sent them."""
    while data := connection.recv(_READ_BYTES):
        found = frames.feed(data)
        if found:
            return found[0]
    return None


def main() -> None:
    """Load the model that the server names, then serve it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then closes us
    connection = socket.socket(fileno=int(sys.argv[1]))
    frames = FrameReader()
    settings = first_frame(connection, frames)
    if settings is None:
        return
    try:
        llm = LLM(settings["model"], **settings["engine"])
    except RorqualError as error:
        connection.sendall(pack({"failed": str(error)}))
        sys.exit(1)
    try:
        serve_engine(llm.engine, connection, frames)
    except EngineError as error:
        connection.sendall(pack({"failed": str(error)}))
        sys.exit(1)
    os._exit(0)  # the reading thread and the native pool need no farewell


if __name__ == "__main__":
    main()
