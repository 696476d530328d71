"""An engine's process for tests: the real worker's loop around a scripted runner."""

import os
import signal
import socket
import sys
import time

from rorqual.server.backends.frames import FrameReader
from rorqual.server.backends.worker import first_frame, serve_engine
from tests.server.scripted import ScriptRunner, make_engine, make_tokenizer


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    frames = FrameReader()
    settings = first_frame(connection, frames)
    tokenizer = make_tokenizer()
    pause = float(settings["pause"])
    runner = ScriptRunner(tokenizer, settings["answers"], pause=lambda: time.sleep(pause))
    if settings.get("hang"):
        signal.signal(signal.SIGUSR1, lambda *_: time.sleep(1000))
    serve_engine(make_engine(runner, tokenizer), connection, frames)
    os._exit(0)


if __name__ == "__main__":
    main()
