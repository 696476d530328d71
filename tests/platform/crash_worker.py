"""A server that is going to be killed: random requests through the platform, and what it delivered.

What a client would have received goes to a file, one write a line, after the platform said that
it may be sent: `reserved ID`, `sent ID PROMPT OUTPUT` (totals), `settled ID`. The file stands for
the world outside, so it is not subject to the kill or the power cut.
"""

import os
import random
import sys
import threading
import time
from dataclasses import dataclass

from rorqual.platform import InsufficientBalance, Platform, group_commit
from tests.platform.conftest import server_config

FLUSH_TOKENS = 8
MAX_ITEM_TOKENS = 3
METERING = {"flush_tokens": FLUSH_TOKENS, "flush_seconds": 0.02}


@dataclass
class Client:
    """One thread of requests, each under an account of a few."""

    platform: Platform
    users: list[str]
    world: int
    rng: random.Random
    prefix: str

    def say(self, line: str) -> None:
        os.write(self.world, f"{line}\n".encode())

    def run(self, num_requests: int) -> None:
        for index in range(num_requests):
            self.request(f"{self.prefix}-{index}")

    def request(self, request_id: str) -> None:
        rng, ledger = self.rng, self.platform.ledger
        prompt, limit = rng.randrange(1, 200), rng.randrange(1, 60)
        try:
            ledger.submit_reserve(  # as the server does, not synced
                request_id,
                rng.choice(self.users),
                "whale",
                prompt_tokens=prompt,
                max_output_tokens=limit,
            ).result()
        except InsufficientBalance:
            return
        self.say(f"reserved {request_id}")
        fate = rng.random()
        if fate < 0.05:  # refused by the engine before anything was made
            ledger.release(request_id)
            self.say(f"settled {request_id}")
            return
        if fate < 0.1:  # a thread of the server dies: left to the sweeper
            return
        self.stream(request_id, prompt, rng.randrange(limit + 1))

    def stream(self, request_id: str, prompt: int, output: int) -> None:
        meter = self.platform.meter(request_id)
        hit = self.rng.randrange(prompt + 1)
        meter.prompt(cache_hit_tokens=hit, input_tokens=prompt - hit)
        sent = 0
        while output > 0:
            tokens = min(output, self.rng.randrange(1, MAX_ITEM_TOKENS + 1))
            output -= tokens
            kind = (
                {"output_tokens": tokens}
                if self.rng.random() < 0.5
                else {"reasoning_tokens": tokens}
            )
            for item in meter.add(tokens, **kind):
                sent += item
                self.say(f"sent {request_id} {prompt} {sent}")
            if self.rng.random() < 0.3:
                time.sleep(self.rng.random() * 0.01)
        held, _ = meter.close("finished" if self.rng.random() < 0.8 else "cancelled")
        for item in held:
            sent += item
            self.say(f"sent {request_id} {prompt} {sent}")
        self.say(f"settled {request_id}")


def main() -> None:
    url, world_path, seed, num_threads, num_requests, syncs = sys.argv[1:]
    if syncs == "never":
        group_commit.LogFile.sync = lambda self: None  # type: ignore[method-assign]
    platform = Platform.open(server_config(url, metering=METERING))
    users = [user.id for user in platform.accounts.page()]
    world = os.open(world_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    clients = [
        Client(platform, users, world, random.Random(f"{seed}-{index}"), f"{seed}-{index}")
        for index in range(int(num_threads))
    ]
    threads = [
        threading.Thread(target=client.run, args=(int(num_requests),), daemon=True)
        for client in clients
    ]
    print("ready", flush=True)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done", flush=True)


if __name__ == "__main__":
    main()
