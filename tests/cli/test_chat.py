"""`rorqual chat`: what the model is shown, what people see, and what is remembered."""

import io
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rorqual.checkpoint import save_model
from rorqual.cli import chat as chat_command
from rorqual.cli.chat import Display, Piece, Talk
from rorqual.cli.main import main
from rorqual.config.run import load_run_config
from rorqual.engine import Delta, Runner, SamplingParams
from rorqual.engine.llm import LLM
from rorqual.errors import RequestError
from rorqual.kernels.step import StepBatch, StepOutput
from rorqual.model import Transformer, initialize
from rorqual.tokenizer import Tokenizer, train_tokenizer

BEGIN, END = "<think>", "</think>"


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chat") / "model"
    model = Transformer(load_run_config("tiny").model)
    initialize(model, 0)
    save_model(model, train_tokenizer(["Who are you? 你是谁？"] * 20, vocab_size=330), path)
    return path


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Tokenizer:
    return Tokenizer.load(model_path)


class Script:
    """A runner that wants one text after the other, token by token, then the end."""

    def __init__(self, runner: Runner):
        self.config, self.num_blocks = runner.config, runner.num_blocks
        self.coming: list[int] = []
        self.after: Callable[[], None] | None = None

    def step(self, batch: StepBatch, **_: object) -> StepOutput:
        logits = np.zeros((len(batch.output_rows), self.config.vocab_size), np.float32)
        for row in logits:
            row[self.coming.pop(0)] = 100.0
            if self.after is not None:
                self.after()
        return StepOutput(logits, None, None)

    def copy_block(self, source: int, target: int) -> None: ...

    def update(self, read: object) -> None: ...

    def close(self) -> None: ...


class ScriptedLLM(LLM):
    """A real engine whose model says what it is told to; keeps what it was shown."""

    def __init__(self, path: Path, *replies: str):
        super().__init__(path, precision="fp32")
        self.replies, self.prompts, self.seeds = list(replies), list[str](), list[int | None]()
        self.script = Script(self.engine.runner)
        self.engine.runner = self.script

    def stream(self, prompt: Any, sampling_params: Any = None, **options: Any) -> Iterator[Delta]:
        self.prompts.append(self.tokenizer.decode(prompt))
        self.seeds.append(sampling_params.seed)
        written = self.tokenizer.encode_with_special(self.replies.pop(0))
        self.script.coming = [*written, self.tokenizer.eos_token_id]
        return super().stream(prompt, sampling_params, **options)


@pytest.fixture
def talk(model_path: Path) -> Callable[..., Talk]:
    def make(*replies: str, think: bool | None = None, max_new_tokens: int = 64) -> Talk:
        params = SamplingParams(max_tokens=max_new_tokens, temperature=0.7, top_p=0.95, seed=5)
        return Talk(ScriptedLLM(model_path, *replies), params, think, None)

    return make


def scripted(talk: Talk) -> ScriptedLLM:
    assert isinstance(talk.llm, ScriptedLLM)
    return talk.llm


def said(pieces: Iterator[Piece]) -> tuple[str, str]:
    """(thinking, reply)"""
    listed = list(pieces)
    return tuple("".join(p.text for p in listed if p.thinking is t) for t in (True, False))  # type: ignore[return-value]


def test_thinking_and_reply_are_told_apart(talk: Callable[..., Talk]) -> None:
    chat = talk(f"{BEGIN}\n你是?\n{END}\n\nA whale.<｜end▁of▁sentence｜>never")
    assert said(chat.reply("Who are you?")) == ("你是?", "A whale.")
    assert chat.turns[-1] == {
        "role": "assistant",
        "content": "A whale.",
        "reasoning_content": "你是?",
    }
    assert scripted(chat).prompts[0].endswith("<｜User｜>Who are you?<｜Assistant｜>")


@pytest.mark.parametrize(
    ("think", "ending", "thinking", "content"),
    [
        (True, f"<｜Assistant｜>{BEGIN}\n", "hm", "so."),
        (False, f"<｜Assistant｜>{BEGIN}\n\n{END}\n\n", "", "hmso."),
        (None, "<｜Assistant｜>", "", "hmso."),
    ],
)
def test_thinking_can_be_asked_for_or_refused(
    talk: Callable[..., Talk], think: bool | None, ending: str, thinking: str, content: str
) -> None:
    chat = talk(f"hm{END}so." if think else "hmso.", think=think)
    assert said(chat.reply("x")) == (thinking, content)
    assert scripted(chat).prompts[0].endswith(ending)


def test_earlier_turns_are_remembered_without_their_thinking(talk: Callable[..., Talk]) -> None:
    chat = talk(f"{BEGIN}secret{END}I am Ann.", "Ann.", "Ann.")
    for text in ("Who?", "Again?", "Again?"):
        list(chat.reply(text))
    second = scripted(chat).prompts[1]
    assert "Who?<｜Assistant｜>I am Ann." in second and "secret" not in second
    assert scripted(chat).seeds == [5, 6, 7]


def test_the_oldest_turns_go_when_the_context_is_full(
    tokenizer: Tokenizer, talk: Callable[..., Talk]
) -> None:
    texts = [f"{n} " + "x" * 40 for n in range(8)]
    chat = talk(*("yes" for _ in texts), max_new_tokens=100)
    prompts = scripted(chat).prompts
    for text in texts:
        list(chat.reply(text))
        assert len(tokenizer.encode_with_special(prompts[-1])) <= 256 - 100
    assert texts[-1] in prompts[-1] and texts[-2] in prompts[-1]
    assert texts[0] not in prompts[-1]
    before = list(chat.turns)
    for chat.system, text in ((None, "y" * 300), ("z" * 300, "short")):
        with pytest.raises(RequestError, match="write a shorter one"):
            list(chat.reply(text))
    assert chat.turns == before


def test_ctrl_c_stops_the_reply_and_what_came_is_kept(talk: Callable[..., Talk]) -> None:
    chat = talk("abcdefgh", "z")
    scripted(chat).script.after = lambda: signal.raise_signal(signal.SIGINT)
    first = "".join(piece.text for piece in chat.reply("x"))
    assert "abcdefgh".startswith(first) and 0 < len(first) < 8
    assert chat.turns[-1]["content"] == first
    assert not chat.llm.engine.has_work
    scripted(chat).script.after = None
    assert said(chat.reply("y")) == ("", "z")


def show(pieces: list[Piece], *, terminal: bool) -> tuple[str, str]:
    """(where thinking goes, where replies go)"""
    thinking, reply = io.StringIO(), io.StringIO()
    display = Display(thinking, reply, terminal)
    for piece in pieces:
        display.show(piece)
    display.finish()
    return thinking.getvalue(), reply.getvalue()


def test_a_terminal_shows_thinking_dimmed_between_markers_and_obeys_no_model() -> None:
    pieces = [Piece("\n1+1\x1b[2J", True), Piece("=2", True), Piece("\n\n2\x07", False)]
    assert show(pieces, terminal=True) == (
        f"\x1b[2m{BEGIN}\n1+1[2J=2\n{END}\x1b[0m\n",
        "2\n",
    )
    assert show(pieces[:1], terminal=True)[0].endswith(f"\n{END}\x1b[0m\n")


def test_a_pipe_gets_the_reply_as_it_is() -> None:
    pieces = [Piece("\n1+1\n", True), Piece("\n\ntwo\n", False), Piece("lines", False)]
    assert show(pieces, terminal=False) == (f"{BEGIN}\n1+1\n{END}\n", "two\nlines\n")


def test_without_a_terminal_each_line_is_a_message(
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened: list[ScriptedLLM] = []

    def open_llm(path: Path, **_: object) -> ScriptedLLM:
        opened.append(ScriptedLLM(path, f"{BEGIN}\nhm\n{END}\n\none", "two", ""))
        return opened[0]

    monkeypatch.setattr(chat_command, "LLM", open_llm)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"first\n\n{'y' * 600}\nsecond\nthird\n"))
    monkeypatch.setattr("sys.argv", ["rorqual", "chat", str(model_path), "--system", "Be brief."])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    out, err = capsys.readouterr()
    assert out == "one\ntwo\n"
    assert f"{BEGIN}\nhm\n{END}\n" in err and "(no reply; more than --max-new-tokens 512" in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "write a shorter one" in errors[0]
    assert "Be brief.<｜User｜>first" in opened[0].prompts[0] and "one" in opened[0].prompts[1]


def test_a_real_model_answers_the_same_for_the_same_seed(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[str] = []
    for seed in ("1", "1", "2"):
        monkeypatch.setattr("sys.stdin", io.StringIO("Who are you?\n"))
        arguments = ["--seed", seed, "--max-new-tokens", "12", "--no-think"]
        monkeypatch.setattr("sys.argv", ["rorqual", "chat", str(model_path), *arguments])
        with pytest.raises(SystemExit):
            main()
        answers.append("".join(capsys.readouterr()))
    assert answers[0] == answers[1] != answers[2]


def test_ctrl_d_leaves_and_ctrl_c_at_the_prompt_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: list[str | type[BaseException]] = ["hello ", KeyboardInterrupt, "  ", "bye", EOFError]

    def read(prompt: str) -> str:
        event = typed.pop(0)
        if isinstance(event, str):
            return event
        raise event

    monkeypatch.setattr("builtins.input", read)
    assert list(chat_command._typed_messages()) == ["hello", "bye"]
    assert "Ctrl-D leaves" in capsys.readouterr().err
