"""A small trilingual corpus, built once, and ways to run the command line on it."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from rorqual.config.run import load_run_config
from rorqual.data import build_shards
from rorqual.data.add import add_files
from rorqual.model import Transformer, initialize
from rorqual.parallel import join_processes
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder, Trainer, choose_dtype

NOUNS = "whale sea ship light stone river garden letter engine number".split()
VERBS = "finds leaves follows carries measures remembers answers opens".split()
HAN = ["鲸鱼", "大海", "船", "灯", "石头", "河流", "花园", "信", "机器", "数字"]
HAN_VERBS = ["找到", "离开", "跟随", "带来", "测量", "记得", "回答", "打开"]


def _english(rng: random.Random) -> str:
    sentence = "The {} {} the {}, and the {} {} a {}."
    fill = [rng.choice(words) for words in (NOUNS, VERBS, NOUNS, NOUNS, VERBS, NOUNS)]
    return sentence.format(*fill)


def _chinese(rng: random.Random) -> str:
    return f"{rng.choice(HAN)}{rng.choice(HAN_VERBS)}{rng.choice(HAN)}。"


def _code(rng: random.Random) -> str:
    a, b = rng.choice(NOUNS), rng.choice(NOUNS)
    return f"def {a}_{rng.randrange(99)}({b}):\n    return {b} + {rng.randrange(999)}\n"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 360 documents in English, Chinese and Python."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    for language, write in (("en", _english), ("zh", _chinese), ("code", _code)):
        source = folder / language
        source.mkdir()
        for number in range(120):
            text = "\n".join(write(rng) for _ in range(rng.randint(4, 30)))
            (source / f"{number:03d}.txt").write_text(text, encoding="utf-8")
        add_files(folder / "data", [source], name=language, language=language, licence="own")
    return folder / "data"


def new_trainer(corpus: Path, out: Path, *overrides: str) -> Trainer:
    """The tiny preset on the corpus, run in this process, in the folder `out`."""
    config = load_run_config("tiny", (f"data.root={corpus}", *overrides))
    processes, index = join_processes(), build_shards(config.data)
    model = Transformer(config.model)
    initialize(model, 0)
    folder = RunFolder(out)
    folder.create(config)
    tokenizer = Tokenizer.load(index.parent / "tokenizer")
    dtype = choose_dtype(config.train, processes.device)
    return Trainer(config, folder, processes, model, tokenizer, index, dtype)


def rorqual(*arguments: str, processes: int = 1, **environment: str) -> subprocess.Popen[str]:
    """Start the command line in a process of its own, or in several under torchrun."""
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    return subprocess.Popen(
        [*launcher, "rorqual.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def finish(process: subprocess.Popen[str], expected: int = 0) -> tuple[str, str]:
    """Wait for a command and check how it ended; its stdout and stderr."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == expected, f"exit {process.returncode}\n{out}\n{err}"
    return out, err
