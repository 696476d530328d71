"""How much of a step of the serving engine is not the network: scheduling, texts, frames, the pipe.

    python benchmarks/engine_share.py [MODEL ...] [--batch 16] [--tokens 200] [--rounds 5]

The engine runs as its process runs it (`worker.serve_engine`: host loop, one frame a step over a
socket); the reader only notes when each frame came. Measured between the first frame in which every
request decodes and the last before one ends: wall time a step, what of it the network and drawing
tokens took (`EngineStats.runner_seconds`, `sampler_seconds`), and the rest of it in per cent.
"""

import argparse
import json
import socket
import statistics
import threading
import time

from rorqual import LLM
from rorqual.engine import Engine, EngineStats, Request, SamplingParams
from rorqual.server.backends.frames import FrameReader, pack, request_to_json
from rorqual.server.backends.worker import serve_engine


def main() -> None:
    """A line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["models/rorqual-pocket"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    given = parser.parse_args()
    for model in given.models:
        llm = LLM(model, max_num_seqs=given.batch)
        found = measure(llm.engine, given)
        walls, runners, draws = (list(values) for values in zip(*found, strict=True))
        shares = [
            round(100 * (1 - (runner + drawing) / wall), 1) for wall, runner, drawing in found
        ]
        figures = {
            "model": model,
            "batch": given.batch,
            "step_ms": round(1e3 * statistics.median(walls), 3),
            "runner_ms": round(1e3 * statistics.median(runners), 3),
            "drawing_ms": round(1e3 * statistics.median(draws), 3),
            "rest_percent": statistics.median(shares),
            "rest_percent_range": [min(shares), max(shares)],
        }
        print(json.dumps(figures))


def measure(engine: Engine, given: argparse.Namespace) -> list[tuple[float, float, float]]:
    """Of each round: wall seconds a step, the network's, those of drawing tokens."""
    ours, theirs = socket.socketpair()
    worker = threading.Thread(target=serve_engine, args=(engine, theirs, FrameReader()))
    worker.start()
    frames = FrameReader()
    try:
        return [one_round(ours, frames, number, given) for number in range(given.rounds)]
    finally:
        ours.shutdown(socket.SHUT_WR)
        worker.join()
        ours.close()
        theirs.close()


def one_round(
    ours: socket.socket, frames: FrameReader, number: int, given: argparse.Namespace
) -> tuple[float, float, float]:
    """One batch of requests from beginning to end."""
    for row in range(given.batch):
        request = Request(
            id=f"{number}-{row}",
            prompt_ids=[100 + (7 * number + row + i) % 200 for i in range(given.prompt_tokens)],
            params=SamplingParams(
                temperature=0.6, top_p=0.95, max_tokens=given.tokens, ignore_eos=True, seed=row
            ),
        )
        ours.sendall(pack({"do": "submit", "request": request_to_json(request)}))
    window: list[tuple[float, EngineStats]] = []
    num_ended = 0
    while num_ended < given.batch:
        data = ours.recv(1 << 18)
        now = time.perf_counter()
        for message in frames.feed(data):
            deltas = message.get("deltas", [])
            num_ended += sum(len(delta) > 6 and delta[6] is not None for delta in deltas)
            if len(deltas) == given.batch and not num_ended:
                window.append((now, EngineStats(**message["stats"])))
    (began, first), (ended, last) = window[1], window[-1]
    steps = last.num_steps - first.num_steps
    runner = last.runner_seconds - first.runner_seconds
    drawing = last.sampler_seconds - first.sampler_seconds
    return (ended - began) / steps, runner / steps, drawing / steps


if __name__ == "__main__":
    main()
